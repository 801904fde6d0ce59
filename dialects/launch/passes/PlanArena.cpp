// Gives every launch.allocate a place in one arena. A place is a slot whose size is a polynomial c0 + c1 * tokens + … +
// c5 * sequences * table_pages, the entries of the page table;
// a buffer may use a slot that is free over its lifetime, and the slot grows coefficient by coefficient to hold it.
// Offsets are sums of slot sizes, so that one plan is right for every number of tokens.
#include "dialects/launch/Launch.h"

#include "llvm/ADT/DenseMap.h"
#include "llvm/Support/Debug.h"

#define DEBUG_TYPE "freeport-launch-plan-arena"

using namespace mlir;

namespace freeport::launch {
namespace {

/// Coefficients of a size: the constant, one for each symbol, and one for the entries of the page table.
using Coefficients = std::array<int64_t, kSymbols + 2>;

bool isEntries(AffineBinaryOpExpr product) {
  MLIRContext *context = product.getContext();
  AffineExpr sequences = symbolExpression(context, Symbol::sequences),
             pages = symbolExpression(context, Symbol::tablePages);
  return product == sequences * pages || product == pages * sequences;
}

/// Adds an upper bound of factor * expression, exact but for ceiling divisions; false for what is not linear.
bool addTerms(AffineExpr expression, int64_t factor, Coefficients &sum) {
  if (auto constant = dyn_cast<AffineConstantExpr>(expression)) {
    sum[0] += factor * constant.getValue();
    return true;
  }
  if (auto symbol = dyn_cast<AffineSymbolExpr>(expression)) {
    sum[1 + symbol.getPosition()] += factor;
    return true;
  }
  auto binary = dyn_cast<AffineBinaryOpExpr>(expression);
  if (!binary)
    return false;
  if (expression.getKind() == AffineExprKind::Add)
    return addTerms(binary.getLHS(), factor, sum) && addTerms(binary.getRHS(), factor, sum);
  if (isEntries(binary)) {
    sum[1 + kSymbols] += factor;
    return true;
  }
  auto constant = dyn_cast<AffineConstantExpr>(binary.getRHS());
  if (!constant)
    return false;
  if (expression.getKind() == AffineExprKind::Mul)
    return addTerms(binary.getLHS(), factor * constant.getValue(), sum);
  if (expression.getKind() != AffineExprKind::CeilDiv)
    return false;
  // ceil(x / n) <= x / n + 1, and x / n is bounded coefficient by coefficient.
  Coefficients inner = {};
  if (!addTerms(binary.getLHS(), 1, inner))
    return false;
  for (auto [total, part] : llvm::zip(sum, inner))
    total += factor * ((part + constant.getValue() - 1) / constant.getValue());
  sum[0] += factor;
  return true;
}

AffineExpr toExpression(MLIRContext *context, const Coefficients &coefficients) {
  AffineExpr sum = getAffineConstantExpr(coefficients[0], context);
  for (unsigned number = 0; number < kSymbols; ++number)
    if (coefficients[1 + number])
      sum = sum + symbolExpression(context, static_cast<Symbol>(number)) * coefficients[1 + number];
  if (coefficients[1 + kSymbols])
    sum = sum + symbolExpression(context, Symbol::sequences) * symbolExpression(context, Symbol::tablePages) *
                    coefficients[1 + kSymbols];
  return sum;
}

struct Slot {
  Coefficients size = {};
  unsigned lastUse = 0;
  SmallVector<AllocateOp> buffers;
};

struct PlanArena : PassWrapper<PlanArena, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(PlanArena)
  StringRef getArgument() const override { return DEBUG_TYPE; }
  StringRef getDescription() const override { return "Give every launch.allocate a place in the arena"; }

  /// Places the variant's buffers and returns the arena's size for it.
  FailureOr<Coefficients> plan(VariantOp variant) {
    DenseMap<Operation *, unsigned> order;
    for (auto [number, op] : llvm::enumerate(variant.getBody().front()))
      order[&op] = number;
    SmallVector<Slot> slots;
    auto allocations = llvm::to_vector(variant.getBody().getOps<AllocateOp>());
    for (AllocateOp allocate : allocations) {
      unsigned first = ~0u, last = 0;
      for (Operation *user : allocate->getUsers()) {
        first = std::min(first, order[user]);
        last = std::max(last, order[user]);
      }
      Coefficients size = {};
      if (!addTerms(allocate.getBytes().getExpression(), 1, size))
        return allocate.emitOpError("expects a size linear in the symbols and in sequences * table_pages, got ")
               << allocate.getBytes();
      for (int64_t &coefficient : size)
        coefficient = (coefficient + 63) / 64 * 64;
      Slot *best = nullptr;
      int64_t bestWaste = 0;
      for (Slot &slot : slots) {
        if (slot.lastUse >= first)
          continue;
        int64_t waste = 0;
        for (auto [have, need] : llvm::zip(slot.size, size))
          waste += std::abs(need - have);
        if (!best || waste < bestWaste)
          best = &slot, bestWaste = waste;
      }
      if (!best)
        best = &slots.emplace_back();
      for (auto [have, need] : llvm::zip(best->size, size))
        have = std::max(have, need);
      best->lastUse = last;
      best->buffers.push_back(allocate);
    }
    Coefficients offset = {};
    for (Slot &slot : slots) {
      for (AllocateOp allocate : slot.buffers) {
        OpBuilder builder(allocate);
        auto place = builder.create<ArenaOp>(allocate.getLoc(), BufferType::get(&getContext()),
                                             SizeAttr::get(&getContext(), toExpression(&getContext(), offset)),
                                             allocate.getBytes());
        LLVM_DEBUG(llvm::dbgs() << place << "\n");
        allocate.replaceAllUsesWith(place.getBuffer());
        allocate.erase();
      }
      for (auto [sum, size] : llvm::zip(offset, slot.size))
        sum += size;
    }
    return offset;
  }

  void runOnOperation() override {
    for (auto program : getOperation().getOps<ProgramOp>()) {
      Coefficients arena = {};
      for (auto variant : program.getBody().getOps<VariantOp>()) {
        FailureOr<Coefficients> size = plan(variant);
        if (failed(size))
          return signalPassFailure();
        for (auto [total, part] : llvm::zip(arena, *size))
          total = std::max(total, part);
      }
      program.setArenaAttr(SizeAttr::get(&getContext(), toExpression(&getContext(), arena)));
    }
  }
};

} // namespace

std::unique_ptr<Pass> createPlanArenaPass() { return std::make_unique<PlanArena>(); }

} // namespace freeport::launch
