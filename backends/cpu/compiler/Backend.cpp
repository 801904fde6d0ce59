// The cpu backend: kernels become an ELF shared object for each profile, which the runtime half loads from memory.
#include "compiler/offload/Backend.h"
#include "backends/cpu/compiler/Pipeline.h"
#include "dialects/kernel/Kernel.h"

namespace freeport {
namespace {

/// Local memory is on the stack of a thread, beside spilled registers.
constexpr int64_t kMaximumLocalBytes = 1 << 20;

class CpuBackend : public Backend {
public:
  llvm::StringRef name() const override { return "cpu"; }
  TargetDescription describe() const override { return {/*weightRun=*/4, /*tokensPerTile=*/{4, 16}}; }

  llvm::Error supports(mlir::Operation *kernel) const override {
    int64_t bytes = 0;
    kernel->walk([&](kernel::LocalOp local) {
      mlir::Type element = local.getBuffer().getType().getElementType();
      bytes += local.getElements() * element.getIntOrFloatBitWidth() / 8;
    });
    if (bytes <= kMaximumLocalBytes)
      return llvm::Error::success();
    return llvm::createStringError("cpu: expects at most " + llvm::Twine(kMaximumLocalBytes) +
                                   " bytes of local memory in a kernel, got " + llvm::Twine(bytes));
  }

  std::vector<std::string> profiles() const override {
    std::vector<std::string> names;
    for (const cpu::Profile &profile : cpu::profiles())
      names.push_back(profile.name.str());
    return names;
  }
  void buildPipeline(mlir::OpPassManager &passes, llvm::StringRef profile) const override {
    cpu::buildPipeline(passes, profile);
  }
  llvm::Expected<Executable> serialize(mlir::ModuleOp module, llvm::StringRef profile) const override {
    return cpu::serialize(module, *cpu::findProfile(profile));
  }
};

} // namespace

std::unique_ptr<Backend> create_cpu_backend() { return std::make_unique<CpuBackend>(); }

void register_cpu_passes() { cpu::registerPasses(); }

} // namespace freeport
