// The passes of each stage, in order. Dialects own their passes; this file only orders them.
#include "compiler/lowering/Pipeline.h"

#include "dialects/graph/Lowering.h"
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

} // namespace freeport
