// From the kernel dialect to the LLVM dialect: the passes of this target and their order.
#pragma once

#include "backends/cpu/compiler/Profile.h"
#include "compiler/offload/Backend.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Pass/PassManager.h"

namespace freeport::cpu {

/// Turns each `kernel.func @k` into a function `@k(bindings: !llvm.ptr, scalars: !llvm.ptr, x: i64, y: i64, z: i64)`,
/// in C `void k(void *const *bindings, const int64_t *scalars, int64_t x, int64_t y, int64_t z)`: binding i is memory
/// argument i, scalar j the j-th index argument. What remains in it is arith, vector, scf and LLVM.
std::unique_ptr<mlir::Pass> createLowerKernelPass(llvm::StringRef profile);

/// Appends every pass from the kernel dialect to the LLVM dialect.
void buildPipeline(mlir::OpPassManager &passes, llvm::StringRef profile);

/// Makes each of these passes known by its name, and all of them as freeport-cpu-pipeline; both take a profile's name.
void registerPasses();

/// Compiles the functions of the LLVM dialect to an ELF shared object for the profile.
llvm::Expected<Executable> serialize(mlir::ModuleOp module, const Profile &profile);

} // namespace freeport::cpu
