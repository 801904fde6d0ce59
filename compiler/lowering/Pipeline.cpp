// The passes of each stage, in order. Dialects own their passes; this file only orders them.
#include "compiler/lowering/Pipeline.h"

#include "compiler/lowering/RunPasses.h"
#include "dialects/graph/Lowering.h"
#include "dialects/kernel/Kernel.h"
#include "dialects/launch/Launch.h"

#include "mlir/Transforms/Passes.h"

namespace freeport {

void buildKernelStage(mlir::OpPassManager &passes, const TargetDescription &target, bool fast) {
  passes.addPass(graph::createLowerGraphPass(target.weightRun, target.tokensPerTile, fast));
  passes.addPass(mlir::createCanonicalizerPass());
  passes.addPass(mlir::createCSEPass());
}

void buildLaunchStage(mlir::OpPassManager &passes) {
  passes.addPass(launch::createPlanArenaPass());
  passes.addPass(launch::createInsertBarriersPass());
}

llvm::Expected<std::vector<std::pair<std::string, Executable>>>
compileKernels(mlir::ModuleOp launch, llvm::ArrayRef<Target> targets, llvm::ArrayRef<mlir::NamedAttribute> attributes,
               llvm::function_ref<bool(const char *)> progress) {
  std::vector<std::pair<std::string, Executable>> compiled;
  for (const auto &[backend, profiles] : targets) {
    for (auto function : launch.getOps<kernel::FuncOp>())
      if (llvm::Error error = backend->supports(function))
        return std::move(error);
    for (const std::string &profile : profiles) {
      if (!progress(("compiling kernels for " + backend->name() + " (" + profile + ")").str().c_str()))
        return llvm::createStringError("cancelled");
      mlir::OwningOpRef<mlir::ModuleOp> kernels = mlir::ModuleOp::create(launch.getLoc());
      for (mlir::NamedAttribute attribute : attributes)
        (*kernels)->setAttr(attribute.getName(), attribute.getValue());
      for (auto function : launch.getOps<kernel::FuncOp>())
        kernels->push_back(function->clone());
      if (llvm::Error error = runPasses(kernels, [&, backend = backend](mlir::OpPassManager &passes) {
            backend->buildPipeline(passes, profile);
          }))
        return std::move(error);
      auto executable = backend->serialize(*kernels, profile);
      if (!executable)
        return executable.takeError();
      compiled.push_back({backend->name().str(), std::move(*executable)});
    }
  }
  return compiled;
}

} // namespace freeport
