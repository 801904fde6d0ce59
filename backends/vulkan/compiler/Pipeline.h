// From the kernel dialect to SPIR-V.
#pragma once

#include "backends/vulkan/compiler/Profile.h"
#include "compiler/offload/Backend.h"

namespace freeport::vulkan {

/// `subgroup`: another size than the profile's; -1: the profile's.
std::unique_ptr<mlir::Pass> createLowerKernelPass(llvm::StringRef profile = "baseline", int64_t subgroup = -1);
/// Turns the modules that freeport-vulkan-lower-kernel left into `spirv.module`s.
std::unique_ptr<mlir::Pass> createConvertToSpirvPass();

void buildPipeline(mlir::OpPassManager &passes, llvm::StringRef profile, int64_t subgroup = -1);

/// The executable of the `spirv.module`s (backends/vulkan/executable.fbs).
llvm::Expected<Executable> serialize(mlir::ModuleOp module, const Profile &profile);

} // namespace freeport::vulkan
