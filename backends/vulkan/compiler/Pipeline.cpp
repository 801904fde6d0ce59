// The passes from the kernel dialect to SPIR-V, in order.
#include "backends/vulkan/compiler/Pipeline.h"

#include "mlir/Transforms/Passes.h"

namespace freeport::vulkan {

void buildPipeline(mlir::OpPassManager &passes, llvm::StringRef profile, int64_t subgroup) {
  passes.addPass(createLowerKernelPass(profile, subgroup));
  passes.addPass(mlir::createCanonicalizerPass());
  passes.addPass(mlir::createCSEPass());
  passes.addPass(createConvertToSpirvPass());
  passes.addPass(mlir::createCanonicalizerPass());
  passes.addPass(mlir::createCSEPass());
}

} // namespace freeport::vulkan
