// A walk in program order with the accesses since the last barrier; loops are walked until nothing new is found.
#include "backends/vulkan/compiler/Hazards.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/Matchers.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace freeport::vulkan {
namespace {

using namespace kernel;

/// An access to `root` (null: the scratch memory of ops that exchange lanes).
struct Access {
  Value root;
  bool write;
  Value base; ///< lane l meets element base + l, and no other; null: anything

  bool operator==(const Access &other) const {
    return root == other.root && write == other.write && base == other.base;
  }
};
using Accesses = SmallVector<Access>;

void merge(Accesses &into, const Accesses &from) {
  for (const Access &access : from)
    if (!llvm::is_contained(into, access))
      into.push_back(access);
}

/// Whether lanes meet only their own elements in both accesses.
bool keepsLanes(const Access &a, const Access &b) {
  if (!a.base || !b.base)
    return false;
  if (a.base == b.base)
    return true;
  APInt first, second;
  if (!matchPattern(a.base, m_ConstantInt(&first)) || !matchPattern(b.base, m_ConstantInt(&second)))
    return false;
  return (first - second).abs().uge(kQuantum) || first == second;
}

class Walk {
public:
  Walk(function_ref<bool(Operation *)> sharesLanes, function_ref<bool(Value)> isVirtual)
      : sharesLanes(sharesLanes), isVirtual(isVirtual) {}

  void block(Block &block, Accesses &pending) {
    for (Operation &op : block) {
      if (auto loop = dyn_cast<scf::ForOp>(op))
        forLoop(loop, pending);
      else if (auto condition = dyn_cast<scf::IfOp>(op))
        conditional(condition, pending);
      else
        single(op, pending);
    }
  }

  DenseSet<Operation *> barriers;

private:
  void forLoop(scf::ForOp op, Accesses &pending) {
    Accesses before = pending;
    while (true) {
      Accesses entry = before, end = entry;
      block(*op.getBody(), end);
      // In the next iteration a base of this loop is another number.
      for (Access &access : end)
        if (access.base && op.getRegion().isAncestor(access.base.getParentRegion()) &&
            !matchPattern(access.base, m_Constant()))
          access.base = Value();
      merge(entry, end);
      if (entry.size() == before.size()) {
        merge(pending, end); // there may be no iteration
        return;
      }
      before = entry;
    }
  }

  void conditional(scf::IfOp op, Accesses &pending) {
    Accesses otherwise = pending;
    block(*op.thenBlock(), pending);
    if (op.elseBlock())
      block(*op.elseBlock(), otherwise);
    merge(pending, otherwise);
  }

  void single(Operation &op, Accesses &pending) {
    Accesses now;
    auto touch = [&](Value root, bool write, Value base = Value()) {
      if (!isVirtual(root))
        now.push_back({root, write, base});
    };
    bool exchanges = sharesLanes(&op);
    TypeSwitch<Operation *>(&op)
        .Case<LoadOp, GatherOp>([&](auto load) { touch(load.getBuffer(), false); })
        .Case<LoadLanesOp>([&](LoadLanesOp load) { touch(load.getBuffer(), false, load.getBase()); })
        .Case<StoreOp, ScatterOp>([&](auto store) { touch(store.getBuffer(), true); })
        .Case<StoreLanesOp>([&](StoreLanesOp store) { touch(store.getBuffer(), true, store.getBase()); })
        .Case<StageOp>([&](StageOp stage) {
          if (isVirtual(stage.getTarget()))
            return;
          touch(stage.getSource(), false);
          touch(stage.getTarget(), true);
        })
        .Case<StoreGroupOp>([&](StoreGroupOp store) { touch(store.getActivations(), true); })
        .Case<SpanDotOp>([&](SpanDotOp dot) {
          touch(dot.getWeights(), false);
          touch(dot.getActivations(), false);
        })
        .Case<UnpackOp>([&](UnpackOp unpack) { touch(unpack.getWeights(), false); });
    if (exchanges)
      now.push_back({Value(), true, Value()});
    bool conflict = llvm::any_of(now, [&](const Access &access) {
      return llvm::any_of(pending, [&](const Access &earlier) {
        return access.root == earlier.root && (access.write || earlier.write) && !keepsLanes(access, earlier);
      });
    });
    if (conflict) {
      barriers.insert(&op);
      pending.clear();
    }
    if (exchanges) {
      pending.assign({{Value(), false, Value()}}); // its own barrier stands between its writes and its reads
      return;
    }
    merge(pending, now);
  }

  function_ref<bool(Operation *)> sharesLanes;
  function_ref<bool(Value)> isVirtual;
};

} // namespace

DenseSet<Operation *> findBarriers(FuncOp function, function_ref<bool(Operation *)> sharesLanes,
                                   function_ref<bool(Value)> isVirtual) {
  Walk walk(sharesLanes, isVirtual);
  Accesses pending;
  walk.block(function.getBody().front(), pending);
  return std::move(walk.barriers);
}

} // namespace freeport::vulkan
