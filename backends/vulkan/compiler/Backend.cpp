// The vulkan backend: kernels become SPIR-V for each profile, which the runtime half chooses from.
#include "compiler/offload/Backend.h"
#include "backends/vulkan/compiler/Pipeline.h"
#include "dialects/kernel/Kernel.h"

#include "mlir/Pass/PassRegistry.h"

namespace freeport {
namespace {

class VulkanBackend : public Backend {
public:
  llvm::StringRef name() const override { return "vulkan"; }
  TargetDescription describe() const override { return {/*weightRun=*/1, /*tokensPerTile=*/{4, 16}}; }
  std::vector<std::string> profiles() const override {
    std::vector<std::string> names;
    for (const vulkan::Profile &profile : vulkan::profiles())
      names.push_back(profile.name.str());
    return names;
  }
  llvm::Error supports(mlir::Operation *kernel) const override {
    // What `stage` fills can be read where it came from; the rest must be shared memory, which every profile has this
    // of.
    int64_t bytes = 0;
    kernel->walk([&](kernel::LocalOp local) {
      bool staged = llvm::any_of(local.getBuffer().getUsers(), [](auto *user) { return isa<kernel::StageOp>(user); });
      bytes += staged ? 0 : 4 * local.getElements();
    });
    int64_t limit = vulkan::profiles().front().sharedBytes - 4 * 2 * kernel::kQuantum;
    if (bytes <= limit)
      return llvm::Error::success();
    return llvm::createStringError("vulkan: expects at most " + llvm::Twine(limit) +
                                   " bytes of local memory in a kernel, got " + llvm::Twine(bytes));
  }
  void buildPipeline(mlir::OpPassManager &passes, llvm::StringRef profile) const override {
    vulkan::buildPipeline(passes, profile);
  }
  llvm::Expected<Executable> serialize(mlir::ModuleOp module, llvm::StringRef profile) const override {
    return vulkan::serialize(module, *vulkan::findProfile(profile));
  }
};

} // namespace

std::unique_ptr<Backend> create_vulkan_backend() { return std::make_unique<VulkanBackend>(); }

void register_vulkan_passes() {
  struct Options : mlir::PassPipelineOptions<Options> {
    Option<std::string> profile{*this, "profile", llvm::cl::init("baseline"), llvm::cl::desc("A name of Profile.cpp")};
    Option<int64_t> subgroup{*this, "subgroup", llvm::cl::init(-1), llvm::cl::desc("Another size than the profile's")};
  };
  mlir::registerPass([] { return vulkan::createLowerKernelPass(); });
  mlir::registerPass(vulkan::createConvertToSpirvPass);
  static mlir::PassPipelineRegistration<Options> pipeline(
      "freeport-vulkan-pipeline", "From the kernel dialect to SPIR-V, for the vulkan backend",
      [](mlir::OpPassManager &passes, const Options &options) {
        vulkan::buildPipeline(passes, options.profile, options.subgroup);
      });
}

} // namespace freeport
