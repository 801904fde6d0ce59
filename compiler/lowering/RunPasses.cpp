// As MLIR's own crash reproducers, but without their handlers of signals, which would stay behind in the user's
// process.
#include "compiler/lowering/RunPasses.h"

#include "mlir/IR/AsmState.h"
#include "llvm/Support/CrashRecoveryContext.h"
#include "llvm/Support/FileSystem.h"

#include <mutex>

using namespace mlir;

namespace freeport {

static std::mutex recoveryMutex;
static int recoveries = 0;

CrashRecovery::CrashRecovery() {
  std::lock_guard lock(recoveryMutex);
  if (recoveries++ == 0)
    llvm::CrashRecoveryContext::Enable();
}

CrashRecovery::~CrashRecovery() {
  std::lock_guard lock(recoveryMutex);
  if (--recoveries == 0)
    llvm::CrashRecoveryContext::Disable();
}

/// Writes `module` and the pipeline as `freeport-opt --run-reproducer` reads them; the file's name, empty if it cannot
/// be written.
static std::string writeReproducer(ModuleOp module, PassManager &passes) {
  llvm::SmallString<128> path;
  int file;
  if (llvm::sys::fs::createTemporaryFile("freeport-reproducer", "mlir", file, path))
    return "";
  llvm::raw_fd_ostream stream(file, /*shouldClose=*/true);
  std::string pipeline;
  llvm::raw_string_ostream pipelineStream(pipeline);
  passes.printAsTextualPipeline(pipelineStream);
  AsmState state(module);
  state.attachResourcePrinter("mlir_reproducer", [&](Operation *, AsmResourceBuilder &builder) {
    builder.buildString("pipeline", pipeline);
    builder.buildBool("disable_threading", true);
    builder.buildBool("verify_each", true);
  });
  module->print(stream, state);
  stream.close();
  bool failed = stream.has_error();
  stream.clear_error();
  return failed ? "" : path.str().str();
}

llvm::Error runPasses(OwningOpRef<ModuleOp> &module, llvm::function_ref<void(OpPassManager &)> build) {
  MLIRContext *context = module->getContext();
  assert(!context->isMultithreadingEnabled() && "a crash is caught on the thread that runs the passes");
  std::string diagnostics;
  ScopedDiagnosticHandler handler(context, [&](Diagnostic &diagnostic) {
    diagnostics += ": " + diagnostic.str();
    return success();
  });
  auto passes = std::make_unique<PassManager>(context, ModuleOp::getOperationName());
  build(*passes);
  OwningOpRef<ModuleOp> before = module->clone();
  LogicalResult result = failure();
  CrashRecovery enabled;
  llvm::CrashRecoveryContext recovery;
  bool survived = recovery.RunSafely([&] { result = passes->run(*module); });
  if (survived && succeeded(result))
    return llvm::Error::success();
  std::string path = writeReproducer(*before, *passes), message = "internal error: a pass ";
  message += survived ? "failed" : "crashed";
  if (!path.empty())
    message += " (to repeat: freeport-opt --run-reproducer " + path + ")";
  if (!survived) { // whatever the crash left half done must not be touched again
    (void)module.release();
    (void)passes.release();
  }
  return llvm::createStringError(message + diagnostics);
}

} // namespace freeport
