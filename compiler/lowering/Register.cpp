// One place names the dialects and the passes; each dialect and backend brings its own.
#include "compiler/lowering/Register.h"

#include "compiler/lowering/Pipeline.h"
#include "dialects/graph/Lowering.h"
#include "dialects/kernel/Emit.h"
#include "dialects/launch/Launch.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Transforms/Passes.h"

namespace freeport {

void registerDialects(mlir::DialectRegistry &registry) {
  registry
      .insert<graph::GraphDialect, kernel::KernelDialect, launch::LaunchDialect, mlir::arith::ArithDialect,
              mlir::func::FuncDialect, mlir::math::MathDialect, mlir::scf::SCFDialect, mlir::vector::VectorDialect>();
}

std::unique_ptr<mlir::MLIRContext> createContext() {
  mlir::DialectRegistry registry;
  registerDialects(registry);
  auto context = std::make_unique<mlir::MLIRContext>(registry, mlir::MLIRContext::Threading::DISABLED);
  context->loadAllAvailableDialects();
  return context;
}

void registerPasses() {
  mlir::registerTransformsPasses();
  mlir::registerPass([] { return graph::createLowerGraphPass(4, {4, 16}, /*fast=*/false); });
  mlir::registerPass(kernel::createExpandMathPass);
  mlir::registerPass(launch::createPlanArenaPass);
  mlir::registerPass(launch::createInsertBarriersPass);
  mlir::PassPipelineRegistration<>("freeport-kernel-stage", "graph -> kernel, with the default schedule",
                                   [](mlir::OpPassManager &passes) { buildKernelStage(passes, TargetDescription()); });
  mlir::PassPipelineRegistration<>("freeport-launch-stage", "kernel -> launch", buildLaunchStage);
  registerBackendPasses();
}

} // namespace freeport
