// The one pass that lowers every graph op, through the Lowerable interface: @step becomes a launch.program with a
// variant for one token and one for many, and kernels shared by both layers and variants.
#include "dialects/graph/Lowering.h"

#include "llvm/Support/Debug.h"

#define DEBUG_TYPE "freeport-graph-lower"

using namespace mlir;

namespace freeport::graph {
namespace {

/// Rows that one step may have; the runtime feeds longer prompts in pieces.
constexpr int64_t kMaximumTokens = 512;

struct LowerGraph : PassWrapper<LowerGraph, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(LowerGraph)
  LowerGraph() = default;
  LowerGraph(const LowerGraph &other) : PassWrapper(other) {}
  explicit LowerGraph(Schedule many) {
    tokensPerTile = many.tokensPerTile;
    weightStreams = many.weightStreams;
  }
  StringRef getArgument() const override { return DEBUG_TYPE; }
  StringRef getDescription() const override { return "Lower @step to kernels and a launch.program"; }
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<kernel::KernelDialect, launch::LaunchDialect>();
  }
  Option<int64_t> tokensPerTile{*this, "tokens-per-tile", llvm::cl::init(4),
                                llvm::cl::desc("Tokens that a program of the many-token variant works on")};
  Option<int64_t> weightStreams{*this, "weight-streams", llvm::cl::init(4),
                                llvm::cl::desc("Row blocks that a single-token linear walks together")};

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto step = module.lookupSymbol<func::FuncOp>("step");
    if (!step)
      return;
    OpBuilder builder = OpBuilder::atBlockEnd(module.getBody());
    auto program = builder.create<launch::ProgramOp>(step.getLoc(), "step", launch::SizeAttr());
    step->setAttr(SymbolTable::getSymbolAttrName(), builder.getStringAttr("step.graph"));
    builder.setInsertionPointToStart(&program.getBody().emplaceBlock());
    for (bool many : {false, true}) {
      auto variant = builder.create<launch::VariantOp>(step.getLoc(), many ? 2 : 1, many ? kMaximumTokens : 1);
      variant.getBody().emplaceBlock();
      LoweringContext context(module, variant, {many ? int64_t(tokensPerTile) : 1, int64_t(weightStreams)});
      for (Operation &op : step.getBody().front()) {
        if (isa<func::ReturnOp>(op))
          continue;
        LLVM_DEBUG(llvm::dbgs() << (many ? "many tokens: " : "one token: ") << op << "\n");
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

std::unique_ptr<Pass> createLowerGraphPass(Schedule many) { return std::make_unique<LowerGraph>(many); }

} // namespace freeport::graph
