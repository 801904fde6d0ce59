// The passes of each stage, in order. Dialects own their passes; this file only orders them.
#include "compiler/lowering/Pipeline.h"

#include "compiler/lowering/Register.h"
#include "compiler/lowering/RunPasses.h"
#include "dialects/graph/Lowering.h"
#include "dialects/kernel/Kernel.h"
#include "dialects/launch/Launch.h"

#include "mlir/Bytecode/BytecodeWriter.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Transforms/Passes.h"

#include <atomic>
#include <mutex>
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>

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

/// A module with nothing but the kernels of `launch`, as MLIR's bytecode.
static llvm::Expected<std::string> kernelsOf(mlir::ModuleOp launch, llvm::ArrayRef<mlir::NamedAttribute> attributes) {
  mlir::OwningOpRef<mlir::ModuleOp> kernels = mlir::ModuleOp::create(launch.getLoc());
  for (mlir::NamedAttribute attribute : attributes)
    (*kernels)->setAttr(attribute.getName(), attribute.getValue());
  for (auto function : launch.getOps<kernel::FuncOp>())
    kernels->push_back(function->clone());
  std::string bytecode;
  llvm::raw_string_ostream stream(bytecode);
  if (mlir::failed(mlir::writeBytecodeToFile(*kernels, stream)))
    return llvm::createStringError("internal error: the kernels have no bytecode");
  return bytecode;
}

/// One profile's executable. The context is its own, so that profiles compile in parallel.
static llvm::Expected<Executable> compileProfile(const Backend &backend, const std::string &profile,
                                                 const std::string &kernels) {
  const std::unique_ptr<mlir::MLIRContext> context = createContext();
  auto module = mlir::parseSourceString<mlir::ModuleOp>(kernels, mlir::ParserConfig(context.get()));
  if (!module)
    return llvm::createStringError("internal error: the kernels' bytecode does not parse");
  if (llvm::Error error =
          runPasses(module, [&](mlir::OpPassManager &passes) { backend.buildPipeline(passes, profile); }))
    return std::move(error);
  return backend.serialize(*module, profile);
}

llvm::Expected<std::vector<std::pair<std::string, Executable>>>
compileKernels(mlir::ModuleOp launch, llvm::ArrayRef<Target> targets, llvm::ArrayRef<mlir::NamedAttribute> attributes,
               llvm::function_ref<bool(const char *)> progress) {
  std::vector<std::pair<const Backend *, std::string>> wanted;
  for (const auto &[backend, profiles] : targets) {
    for (auto function : launch.getOps<kernel::FuncOp>())
      if (llvm::Error error = backend->supports(function))
        return std::move(error);
    for (const std::string &profile : profiles)
      wanted.push_back({backend, profile});
  }
  auto kernels = kernelsOf(launch, attributes);
  if (!kernels)
    return kernels.takeError();
  std::vector<std::optional<llvm::Expected<Executable>>> made(wanted.size());
  std::atomic<bool> stopped = false;
  std::mutex mutex; // of `progress`
  CrashRecovery recovery;
  tbb::parallel_for(
      tbb::blocked_range<size_t>(0, wanted.size(), 1),
      [&](const tbb::blocked_range<size_t> &range) {
        const size_t number = range.begin();
        const auto &[backend, profile] = wanted[number];
        {
          std::lock_guard lock(mutex);
          if (!stopped && !progress(("compiling kernels for " + backend->name() + " (" + profile + ")").str().c_str()))
            stopped = true;
        }
        if (stopped)
          return;
        made[number].emplace(compileProfile(*backend, profile, *kernels));
        if (!*made[number])
          stopped = true;
      },
      tbb::simple_partitioner()); // one profile at a time
  std::vector<std::pair<std::string, Executable>> compiled;
  llvm::Error failure = llvm::Error::success();
  for (auto [each, executable] : llvm::zip_equal(wanted, made)) {
    if (executable && *executable)
      compiled.push_back({each.first->name().str(), std::move(**executable)});
    else if (executable)
      failure = llvm::joinErrors(std::move(failure), executable->takeError());
  }
  if (failure)
    return std::move(failure);
  if (compiled.size() != wanted.size())
    return llvm::createStringError("cancelled");
  return compiled;
}

} // namespace freeport
