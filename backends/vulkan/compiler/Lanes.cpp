// Ops of a kernel through which lanes meet: in shared memory, or by shuffles where the profile has subgroups.
#include "backends/vulkan/compiler/KernelLowering.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace freeport::vulkan {

using namespace kernel;

/// Shows each lane's words to all lanes, slot by slot.
void KernelLowering::publish(ArrayRef<Value> words) {
  for (auto [slot, word] : llvm::enumerate(words))
    m.storeWord(word, scratch, {Value(), scratchAt(m.add(m.lane(), m.i32(kQuantum * slot)))});
  m.barrier();
}
Value KernelLowering::published(int64_t slot, Value lane) {
  return m.loadWord(scratch, {Value(), scratchAt(m.add(lane, m.i32(kQuantum * slot)))});
}

Value KernelLowering::shuffle(Value value, int64_t distance) {
  return m.create<spirv::GroupNonUniformShuffleXorOp>(spirv::Scope::Subgroup, value, m.i32(distance));
}

/// Lane 0's result of the tree over the 32 lanes, in all of them; `lanes` are words. Distances beyond a subgroup are
/// combined out of shared memory, each invocation taking the part of the lane that has its place in the first subgroup;
/// the rest by shuffles.
SmallVector<Value> KernelLowering::tree(ArrayRef<Value> lanes, Combine combine) {
  int64_t subgroup = std::max<int64_t>(m.profile.subgroup, 1);
  SmallVector<Value> result(lanes);
  if (subgroup < kQuantum) {
    publish(lanes);
    Value first = m.profile.subgroup ? m.subgroupLane() : m.i32(0);
    SmallVector<SmallVector<Value>> level;
    for (int64_t lane = 0; lane < kQuantum; lane += subgroup) {
      SmallVector<Value> &words = level.emplace_back();
      for (size_t slot = 0; slot < lanes.size(); ++slot)
        words.push_back(published(slot, m.add(first, m.i32(lane))));
    }
    for (; level.size() > 1; level.resize(level.size() / 2))
      for (size_t number = 0; number < level.size() / 2; ++number)
        level[number] = combine(level[number], level[number + level.size() / 2]);
    result = level.front();
  }
  for (int64_t distance = subgroup / 2; distance; distance /= 2) {
    SmallVector<Value> other;
    for (Value word : result)
      other.push_back(shuffle(word, distance));
    result = combine(result, other);
  }
  if (m.profile.subgroup)
    for (Value &word : result)
      word = m.create<spirv::GroupNonUniformBroadcastOp>(
          word.getType(), spirv::Scope::Subgroup, word,
          m.create<spirv::ConstantOp>(m.i32Type(), builder.getI32IntegerAttr(0)));
  return result;
}

Value KernelLowering::combine(ReduceKind kind, Value a, Value b) {
  bool isFloat = isa<FloatType>(a.getType());
  if (kind == ReduceKind::add)
    return m.add(a, b);
  bool max = kind == ReduceKind::max;
  Value wins = isFloat ? m.compare(max ? arith::CmpFPredicate::OGT : arith::CmpFPredicate::OLT, a, b)
                       : m.compare(max ? arith::CmpIPredicate::sgt : arith::CmpIPredicate::slt, a, b);
  return m.select(wins, a, b);
}

bool KernelLowering::lowerLanes(Operation &op) {
  auto words = [&](Value value) { return isa<FloatType>(value.getType()) ? m.toBits(value) : value; };
  auto back = [&](Value word, Type type) { return getElementTypeOrSelf(type).isF32() ? m.fromBits(word) : word; };
  return TypeSwitch<Operation *, bool>(&op)
      .Case<ProgramIdOp>([&](ProgramIdOp id) {
        set(id.getResult(), m.workgroup(static_cast<int>(id.getDimension())));
        return true;
      })
      .Case<LaneIdOp>([&](LaneIdOp id) {
        set(id.getResult(), m.lane());
        return true;
      })
      .Case<ReduceOp>([&](ReduceOp reduce) {
        Type type = reduce.getValue().getType();
        Value result = tree({words(scalar(reduce.getValue()))}, [&](ArrayRef<Value> a, ArrayRef<Value> b) {
          return SmallVector<Value>{words(combine(reduce.getKind(), back(a[0], type), back(b[0], type)))};
        })[0];
        set(reduce.getResult(), back(result, type));
        return true;
      })
      .Case<ArgmaxOp>([&](ArgmaxOp argmax) {
        SmallVector<Value> result =
            tree({m.toBits(scalar(argmax.getValue())), scalar(argmax.getIndices())}, [&](ArrayRef<Value> a,
                                                                                         ArrayRef<Value> b) {
              Value x = m.fromBits(a[0]), y = m.fromBits(b[0]);
              Value equal = m.compare(arith::CmpFPredicate::OEQ, x, y);
              Value wins = m.bitOr(m.compare(arith::CmpFPredicate::OGT, x, y), m.bitAnd(equal, m.less(a[1], b[1])));
              return SmallVector<Value>{m.select(wins, a[0], b[0]), m.select(wins, a[1], b[1])};
            });
        set(argmax.getMaximum(), m.fromBits(result[0]));
        set(argmax.getIndex(), result[1]);
        return true;
      })
      .Case<ScanOp>([&](ScanOp scan) {
        Value value = scalar(scan.getValue());
        if (m.profile.subgroup == kQuantum) {
          for (int64_t distance = 1; distance < kQuantum; distance *= 2) {
            Value from = m.subtract(m.lane(), m.i32(distance)),
                  inside = m.compare(arith::CmpIPredicate::sge, from, m.i32(0));
            Value moved = m.create<spirv::GroupNonUniformShuffleOp>(spirv::Scope::Subgroup, value,
                                                                    m.select(inside, from, m.lane()));
            value = m.add(value, m.select(inside, moved, m.i32(0)));
          }
          set(scan.getResult(), value);
          return true;
        }
        publish({value});
        Value sum = m.loop(m.i32(0), m.add(m.lane(), m.i32(1)), m.i32(1), {m.i32(0)},
                           [&](Value lane, ValueRange carried) -> SmallVector<Value> {
                             return {m.add(carried[0], published(0, lane))};
                           })[0];
        set(scan.getResult(), sum);
        return true;
      })
      .Case<kernel::BroadcastOp>([&](kernel::BroadcastOp broadcast) {
        Value value = scalar(broadcast.getValue()), lane = scalar(broadcast.getLane());
        if (m.profile.subgroup == kQuantum) {
          set(broadcast.getResult(), m.create<spirv::GroupNonUniformShuffleOp>(spirv::Scope::Subgroup, value, lane));
          return true;
        }
        publish({words(value)});
        set(broadcast.getResult(), back(published(0, lane), broadcast.getValue().getType()));
        return true;
      })
      .Default([](Operation *) { return false; });
}

} // namespace freeport::vulkan
