// What is left of a pass that fails or crashes: an error that names a reproducer which freeport-opt would run.
#include "compiler/lowering/Register.h"
#include "compiler/lowering/RunPasses.h"
#include "dialects/launch/Launch.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/Pass.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <regex>

using namespace mlir;

namespace freeport {
namespace {

struct Crash : PassWrapper<Crash, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(Crash)
  StringRef getArgument() const override { return "test-crash"; }
  void runOnOperation() override {
    getOperation()->setAttr("half.done", UnitAttr::get(&getContext()));
    std::abort();
  }
};

class RunPasses : public testing::Test {
protected:
  const std::unique_ptr<MLIRContext> owned = createContext();
  MLIRContext &context = *owned;

  RunPasses() {
    module = parseSourceString<ModuleOp>(R"(
      kernel.func @k(%b: !kernel.buffer<f32>) {
        kernel.return
      }
      launch.program @step {
        launch.variant tokens 1 to 1 {
          %a = launch.allocate <4>
          launch.dispatch @k grid [#launch.size<1>](%a) writes [0] scalars [] implements "test"
        }
      })",
                                         &context);
  }

  /// The text of the reproducer that `message` names; the file is removed.
  std::string reproducer(const std::string &message) {
    std::smatch match;
    if (!std::regex_search(message, match, std::regex("freeport-opt --run-reproducer ([^)]*)\\)")))
      return "no reproducer in: " + message;
    auto buffer = llvm::MemoryBuffer::getFile(match[1].str());
    llvm::sys::fs::remove(match[1].str());
    return buffer ? (*buffer)->getBuffer().str() : "cannot read " + match[1].str();
  }

  OwningOpRef<ModuleOp> module;
};

TEST_F(RunPasses, Success) {
  ASSERT_TRUE(module);
  llvm::Error error = runPasses(module, [](OpPassManager &passes) { passes.addPass(launch::createPlanArenaPass()); });
  EXPECT_FALSE(static_cast<bool>(error)) << llvm::toString(std::move(error));
}

TEST_F(RunPasses, Failure) {
  ASSERT_TRUE(module);
  std::string message = llvm::toString(
      runPasses(module, [](OpPassManager &passes) { passes.addPass(launch::createInsertBarriersPass()); }));
  EXPECT_NE(message.find("internal error: a pass failed (to repeat: "), std::string::npos) << message;
  EXPECT_NE(message.find("expects planned memory"), std::string::npos) << message;
  std::string text = reproducer(message);
  EXPECT_NE(text.find("launch.dispatch @k"), std::string::npos) << text;
  EXPECT_NE(text.find("pipeline: \"builtin.module(freeport-launch-insert-barriers)\""), std::string::npos) << text;
  EXPECT_TRUE(module);
}

TEST_F(RunPasses, Crash) {
  ASSERT_TRUE(module);
  std::string message =
      llvm::toString(runPasses(module, [](OpPassManager &passes) { passes.addPass(std::make_unique<Crash>()); }));
  EXPECT_NE(message.find("internal error: a pass crashed (to repeat: "), std::string::npos) << message;
  std::string text = reproducer(message);
  EXPECT_NE(text.find("launch.dispatch @k"), std::string::npos) << text;
  EXPECT_NE(text.find("test-crash"), std::string::npos) << text;
  EXPECT_EQ(text.find("half.done"), std::string::npos) << text;
  EXPECT_FALSE(module);
}

} // namespace
} // namespace freeport
