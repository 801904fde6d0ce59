// The one pass that lowers every graph op, through the Lowerable interface: @step becomes a launch.program with a
// variant each for one token, few and many (and long prompts, where latents are expanded for them), and kernels shared
// by both layers and variants.
#include "dialects/graph/Lowering.h"

#include "llvm/Support/Debug.h"

#define DEBUG_TYPE "freeport-graph-lower"

using namespace mlir;

namespace freeport::graph {
namespace {

/// Rows that one step may have; the runtime feeds longer prompts in pieces.
constexpr int64_t kMaximumTokens = 512;
/// Many tokens begin here: enough for two of their tiles.
constexpr int64_t kManyTokens = 32;
/// From here on latent attention is expanded where it may be: what each token saves outweighs the expansion of even a
/// deep context (docs/decisions/0012-fast-numerics.md).
constexpr int64_t kExpandedTokens = 128;

struct LowerGraph : PassWrapper<LowerGraph, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(LowerGraph)
  LowerGraph() = default;
  LowerGraph(const LowerGraph &other) : PassWrapper(other) {}
  LowerGraph(int64_t run, ArrayRef<int64_t> tiles, bool isFast) {
    weightRun = run;
    tokensPerTile = tiles;
    fast = isFast;
  }
  StringRef getArgument() const override { return DEBUG_TYPE; }
  StringRef getDescription() const override { return "Lower @step to kernels and a launch.program"; }
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<kernel::KernelDialect, launch::LaunchDialect>();
  }
  ListOption<int64_t> tokensPerTile{*this, "tokens-per-tile",
                                    llvm::cl::desc("Tokens that a program works on in steps of few and of many")};
  Option<int64_t> weightRun{*this, "weight-run", llvm::cl::init(1),
                            llvm::cl::desc("Row blocks of an expert's gate that a single token reads before up's")};
  Option<bool> fast{*this, "fast", llvm::cl::init(false), llvm::cl::desc("Fast numerics: exp is the target's own")};

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto step = module.lookupSymbol<func::FuncOp>("step");
    if (!step)
      return;
    OpBuilder builder = OpBuilder::atBlockEnd(module.getBody());
    auto program = builder.create<launch::ProgramOp>(step.getLoc(), "step", launch::SizeAttr());
    step->setAttr(SymbolTable::getSymbolAttrName(), builder.getStringAttr("step.graph"));
    builder.setInsertionPointToStart(&program.getBody().emplaceBlock());
    if (tokensPerTile.size() != 2) {
      module.emitError("expects two numbers of tokens per tile, got ") << tokensPerTile.size();
      return signalPassFailure();
    }
    struct TokenClass {
      const char *name;
      int64_t first, last, tile;
      bool expandLatents = false;
    };
    SmallVector<TokenClass> classes = {{"one token", 1, 1, 1},
                                       {"few tokens", 2, kManyTokens - 1, tokensPerTile[0]},
                                       {"many tokens", kManyTokens, kMaximumTokens, tokensPerTile[1]}};
    auto latents = step.getOps<LatentAttentionOp>();
    if (llvm::any_of(latents, [](LatentAttentionOp op) { return bool(op.getExpansionWeightAttr()); })) {
      classes.back().last = kExpandedTokens - 1;
      classes.push_back({"long prompts", kExpandedTokens, kMaximumTokens, tokensPerTile[1], /*expandLatents=*/true});
    }
    for (const auto &tokens : classes) {
      auto variant = builder.create<launch::VariantOp>(step.getLoc(), tokens.first, tokens.last);
      variant.getBody().emplaceBlock();
      LoweringContext context(
          module, variant, {tokens.tile, int64_t(weightRun), tokens.first >= kManyTokens, tokens.expandLatents, fast});
      for (Operation &op : step.getBody().front()) {
        if (isa<func::ReturnOp>(op))
          continue;
        LLVM_DEBUG(llvm::dbgs() << tokens.name << ": " << op << "\n");
        auto lowerable = dyn_cast<Lowerable>(op);
        if (!lowerable) {
          op.emitOpError("expects an op of the graph dialect in @step");
          return signalPassFailure();
        }
        if (failed(lowerable.lower(context)))
          return signalPassFailure();
      }
    }
    step.erase();
  }
};

} // namespace

std::unique_ptr<Pass> createLowerGraphPass(int64_t weightRun, ArrayRef<int64_t> tokensPerTile, bool fast) {
  return std::make_unique<LowerGraph>(weightRun, tokensPerTile, fast);
}

} // namespace freeport::graph
