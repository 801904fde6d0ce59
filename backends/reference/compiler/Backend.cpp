// The compiler half of the reference backend. It transforms nothing of portable kernels: what the lowering made is what
// is interpreted, so that no pass can hide a mistake from the oracle. In `fast` numerics math.exp is the portable
// definition here.
#include "compiler/offload/Backend.h"
#include "dialects/kernel/Emit.h"

#include "backends/reference/bytecode_generated.h"
#include "backends/reference/compiler/Serialize.h"

namespace freeport {
namespace {

class ReferenceBackend : public Backend {
public:
  llvm::StringRef name() const override { return "reference"; }

  TargetDescription describe() const override { return {}; }

  llvm::Error supports(mlir::Operation *operation) const override {
    auto function = llvm::dyn_cast<kernel::FuncOp>(operation);
    if (!function)
      return llvm::createStringError("reference: expects a kernel.func, got " +
                                     operation->getName().getStringRef().str());
    mlir::OwningOpRef<kernel::FuncOp> expanded(function.clone());
    kernel::expandMath(*expanded);
    return reference::checkFunction(*expanded);
  }

  std::vector<std::string> profiles() const override { return {"bytecode"}; }
  void buildPipeline(mlir::OpPassManager &passes, llvm::StringRef) const override {
    passes.addPass(kernel::createExpandMathPass());
  }

  llvm::Expected<Executable> serialize(mlir::ModuleOp module, llvm::StringRef) const override {
    llvm::Expected<std::vector<char>> content = reference::serializeModule(module);
    if (!content)
      return content.takeError();
    return Executable{
        "bytecode", {}, static_cast<uint32_t>(reference::bytecode::Version::current), std::move(*content)};
  }
};

} // namespace

std::unique_ptr<Backend> create_reference_backend() { return std::make_unique<ReferenceBackend>(); }

void register_reference_passes() {}

} // namespace freeport
