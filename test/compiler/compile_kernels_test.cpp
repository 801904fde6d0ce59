// Profiles compile in parallel: their order and bytes are those of the request, and who fails or cancels ends all.
#include "compiler/lowering/Pipeline.h"
#include "compiler/lowering/Register.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/Pass.h"
#include "llvm/Support/FileSystem.h"

#include <gtest/gtest.h>

#include <regex>

using namespace mlir;

namespace freeport {
namespace {

struct Fail : PassWrapper<Fail, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(Fail)
  StringRef getArgument() const override { return "test-fail"; }
  void runOnOperation() override {
    getOperation()->emitError("this profile does not compile");
    signalPassFailure();
  }
};

/// Its executables are the profile's name and the module's text.
struct TextBackend : Backend {
  StringRef name() const override { return "text"; }
  TargetDescription describe() const override { return {}; }
  llvm::Error supports(Operation *) const override { return llvm::Error::success(); }
  std::vector<std::string> profiles() const override { return {}; }
  void buildPipeline(OpPassManager &passes, StringRef profile) const override {
    if (profile == "failing")
      passes.addPass(std::make_unique<Fail>());
  }
  llvm::Expected<Executable> serialize(ModuleOp module, StringRef profile) const override {
    std::string text = profile.str() + ": ";
    llvm::raw_string_ostream(text) << module;
    return Executable{profile.str(), {}, 1, {text.begin(), text.end()}};
  }
};

class CompileKernels : public testing::Test {
protected:
  const std::unique_ptr<MLIRContext> owned = createContext();
  MLIRContext &context = *owned;

  CompileKernels() {
    module = parseSourceString<ModuleOp>(R"(
      kernel.func @store(%b: !kernel.buffer<f32>, %i: index) {
        %one = arith.constant 1.0 : f32
        kernel.store %one, %b[%i] : f32, !kernel.buffer<f32>
        kernel.return
      })",
                                         &context);
  }

  auto compile(ArrayRef<Target> targets, function_ref<bool(const char *)> progress) {
    NamedAttribute attribute(StringAttr::get(&context, "test.attribute"), UnitAttr::get(&context));
    return compileKernels(*module, targets, attribute, progress);
  }

  OwningOpRef<ModuleOp> module;
  TextBackend text;
};

TEST_F(CompileKernels, KeepTheOrderAndTheBytes) {
  std::vector<Target> targets = {{&text, {"c", "a", "b"}}};
  for (const auto &backend : backends())
    targets.push_back({backend.get(), backend->profiles()});
  std::vector<std::string> told;
  auto first = compile(targets, [&](const char *what) { return told.push_back(what), true; });
  ASSERT_TRUE(static_cast<bool>(first)) << llvm::toString(first.takeError());
  size_t number = 0;
  for (const Target &target : targets)
    for (const std::string &profile : target.profiles) {
      ASSERT_LT(number, first->size());
      EXPECT_EQ((*first)[number].first, target.backend->name());
      if (target.backend == &text)
        EXPECT_EQ((*first)[number].second.target, profile);
      EXPECT_TRUE(
          llvm::is_contained(told, ("compiling kernels for " + target.backend->name() + " (" + profile + ")").str()));
      ++number;
    }
  EXPECT_EQ(number, first->size());
  const std::vector<char> &content = (*first)[0].second.content;
  const std::string shown(content.begin(), content.end());
  EXPECT_TRUE(StringRef(shown).starts_with("c: module attributes {test.attribute}")) << shown;
  EXPECT_TRUE(StringRef(shown).contains("kernel.func @store")) << shown;
  auto second = compile(targets, [](const char *) { return true; });
  ASSERT_TRUE(static_cast<bool>(second)) << llvm::toString(second.takeError());
  for (size_t i = 0; i < first->size(); ++i)
    EXPECT_EQ((*first)[i].second.content, (*second)[i].second.content) << (*first)[i].second.target;
}

TEST_F(CompileKernels, TellWhichPassFailed) {
  auto compiled = compile({{&text, {"a", "failing", "b"}}}, [](const char *) { return true; });
  ASSERT_FALSE(static_cast<bool>(compiled));
  const std::string message = llvm::toString(compiled.takeError());
  std::smatch match;
  ASSERT_TRUE(std::regex_search(message, match, std::regex("freeport-opt --run-reproducer ([^)]*)\\)"))) << message;
  EXPECT_NE(message.find("this profile does not compile"), std::string::npos) << message;
  EXPECT_FALSE(llvm::sys::fs::remove(match[1].str()));
}

TEST_F(CompileKernels, AreCancelled) {
  int calls = 0;
  auto compiled = compile({{&text, {"a", "b", "c", "d", "e", "f"}}}, [&](const char *) { return ++calls < 2; });
  ASSERT_FALSE(static_cast<bool>(compiled));
  EXPECT_EQ(llvm::toString(compiled.takeError()), "cancelled");
  EXPECT_EQ(calls, 2);
}

} // namespace
} // namespace freeport
