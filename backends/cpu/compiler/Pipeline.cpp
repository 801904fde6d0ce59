// The passes from the kernel dialect to the LLVM dialect, in order. Everything after the first is upstream's.
#include "backends/cpu/compiler/Pipeline.h"

#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/FuncToLLVM/ConvertFuncToLLVMPass.h"
#include "mlir/Conversion/ReconcileUnrealizedCasts/ReconcileUnrealizedCasts.h"
#include "mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVMPass.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Transforms/Passes.h"

namespace freeport::cpu {

void buildPipeline(mlir::OpPassManager &passes, llvm::StringRef profile) {
  passes.addPass(createLowerKernelPass(profile));
  passes.addPass(mlir::createCanonicalizerPass());
  passes.addPass(mlir::createCSEPass());
  passes.addPass(mlir::createConvertSCFToCFPass());
  passes.addPass(mlir::arith::createArithExpandOpsPass());
  passes.addPass(mlir::createConvertVectorToLLVMPass());
  passes.addPass(mlir::createArithToLLVMConversionPass());
  passes.addPass(mlir::createConvertControlFlowToLLVMPass());
  passes.addPass(mlir::createConvertFuncToLLVMPass());
  passes.addPass(mlir::createCanonicalizerPass());
  passes.addPass(mlir::createCSEPass());
  passes.addPass(mlir::createReconcileUnrealizedCastsPass());
}

namespace {
struct PipelineOptions : mlir::PassPipelineOptions<PipelineOptions> {
  Option<std::string> profile{*this, "profile", llvm::cl::desc("What the processor offers: a name of Profile.cpp"),
                              llvm::cl::init(profiles().front().name.str())};
};
} // namespace

void registerPasses() {
  mlir::registerPass([] { return createLowerKernelPass(profiles().front().name); });
  mlir::registerPass([] { return mlir::createConvertSCFToCFPass(); });
  mlir::registerPass([] { return mlir::arith::createArithExpandOpsPass(); });
  mlir::registerPass([] { return mlir::createConvertVectorToLLVMPass(); });
  mlir::registerPass([] { return mlir::createArithToLLVMConversionPass(); });
  mlir::registerPass([] { return mlir::createConvertControlFlowToLLVMPass(); });
  mlir::registerPass([] { return mlir::createConvertFuncToLLVMPass(); });
  mlir::registerPass([] { return mlir::createReconcileUnrealizedCastsPass(); });
  mlir::PassPipelineRegistration<PipelineOptions>(
      "freeport-cpu-pipeline", "From the kernel dialect to the LLVM dialect, for the cpu backend",
      [](mlir::OpPassManager &passes, const PipelineOptions &options) { buildPipeline(passes, options.profile); });
}

} // namespace freeport::cpu
