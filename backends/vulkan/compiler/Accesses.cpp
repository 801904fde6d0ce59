// Ops of a kernel that read and write memory. A uniform store is the first lane's; masked lanes store nothing.
#include "backends/vulkan/compiler/KernelLowering.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace freeport::vulkan {

using namespace kernel;

Value KernelLowering::byteOf(Value buffer, Value index) {
  int64_t width = memories[buffer].local ? 4 : widthOf(cast<BufferType>(buffer.getType()).getElementType()) / 8;
  return width == 1 ? index : m.shiftLeft(index, m.i32(llvm::Log2_64(width)));
}

Value KernelLowering::loadRaw(const Memory &memory, Type element, Value bytes) {
  if (element.isF16())
    return m.loadHalf(memory, {Value(), bytes});
  if (element.isInteger(8))
    return m.loadByte(memory, {Value(), bytes});
  Value word = m.loadWord(memory, {Value(), bytes});
  return element.isF32() ? m.fromBits(word) : word;
}

Value KernelLowering::loadElement(Value buffer, Value index, Value mask) {
  // Masked lanes read the first element, and drop it.
  if (mask)
    index = m.select(mask, index, m.i32(0));
  Type element = cast<BufferType>(buffer.getType()).getElementType();
  Value value;
  if (StageOp stage = virtualStages.lookup(buffer)) {
    Value column = m.shiftRight(index, m.i32(5)), row = m.bitAnd(index, m.i32(31));
    Value from = m.add(scalar(stage.getBase()), m.add(m.multiply(row, m.i32(stage.getPitch())), column));
    Type source = cast<BufferType>(stage.getSource().getType()).getElementType();
    value = loadRaw(memories[stage.getSource()], source, byteOf(stage.getSource(), from));
    if (!source.isF32())
      value = source.isF16() ? m.halfToFloat(value) : m.toFloat(value);
  } else {
    value = loadRaw(memories[buffer], element, byteOf(buffer, index));
  }
  if (!mask)
    return value;
  return m.select(mask, value, element.isF32() ? m.f32(0) : m.i32(0));
}

void KernelLowering::storeElement(Value value, Value buffer, Value index) {
  const Memory &memory = memories[buffer];
  Type element = cast<BufferType>(buffer.getType()).getElementType();
  Address at{Value(), byteOf(buffer, index)};
  if (element.isF16())
    m.storeHalf(value, memory, at);
  else if (element.isInteger(8))
    m.storeByte(value, memory, at);
  else
    m.storeWord(element.isF32() ? m.toBits(value) : value, memory, at);
}

bool KernelLowering::lowerMemory(Operation &op) {
  auto optional = [&](Value value) { return value ? scalar(value) : Value(); };
  auto whereMasked = [&](Value mask, function_ref<void()> store) {
    if (mask)
      m.when(scalar(mask), store);
    else
      store();
  };
  auto byFirstLane = [&](function_ref<void()> store) { m.when(m.equal(m.lane(), m.i32(0)), store); };
  return TypeSwitch<Operation *, bool>(&op)
      .Case<LocalOp>([](auto) { return true; })
      .Case<LoadOp>([&](LoadOp load) {
        set(load.getResult(), loadElement(load.getBuffer(), scalar(load.getBase())));
        return true;
      })
      .Case<LoadLanesOp>([&](LoadLanesOp load) {
        set(load.getResult(),
            loadElement(load.getBuffer(), m.add(scalar(load.getBase()), m.lane()), optional(load.getMask())));
        return true;
      })
      .Case<GatherOp>([&](GatherOp gather) {
        Value index = m.add(scalar(gather.getBase()), scalar(gather.getOffsets()));
        set(gather.getResult(), loadElement(gather.getBuffer(), index, optional(gather.getMask())));
        return true;
      })
      .Case<StoreOp>([&](StoreOp store) {
        byFirstLane([&] { storeElement(scalar(store.getValue()), store.getBuffer(), scalar(store.getBase())); });
        return true;
      })
      .Case<StoreLanesOp>([&](StoreLanesOp store) {
        whereMasked(store.getMask(), [&] {
          storeElement(scalar(store.getValue()), store.getBuffer(), m.add(scalar(store.getBase()), m.lane()));
        });
        return true;
      })
      .Case<ScatterOp>([&](ScatterOp scatter) {
        whereMasked(scatter.getMask(), [&] {
          storeElement(scalar(scatter.getValue()), scatter.getBuffer(),
                       m.add(scalar(scatter.getBase()), scalar(scatter.getOffsets())));
        });
        return true;
      })
      .Case<StageOp>([&](StageOp stage) {
        if (virtualStages.contains(stage.getTarget()))
          return true;
        // Lane r copies row r.
        Value row = m.add(scalar(stage.getBase()), m.multiply(m.lane(), m.i32(stage.getPitch())));
        Type source = cast<BufferType>(stage.getSource().getType()).getElementType();
        m.loop(m.i32(0), m.i32(stage.getColumns()), m.i32(1), {}, [&](Value column, ValueRange) -> SmallVector<Value> {
          Value value = loadElement(stage.getSource(), m.add(row, column));
          if (!source.isF32())
            value = source.isF16() ? m.halfToFloat(value) : m.toFloat(value);
          storeElement(value, stage.getTarget(), m.add(m.shiftLeft(column, m.i32(5)), m.lane()));
          return {};
        });
        return true;
      })
      .Case<StoreGroupOp>([&](StoreGroupOp store) {
        ActivationsType type = store.getActivations().getType();
        const Memory &memory = memories[store.getActivations()];
        Value record = m.multiply(scalar(store.getToken()), m.i32(type.getTokenBytes())),
              group = scalar(store.getGroup());
        Value element = m.add(m.multiply(group, m.i32(kQuantum)), m.lane());
        if (!type.isQuantized()) {
          m.storeWord(m.toBits(scalar(store.getValue())), memory,
                      {Value(), m.add(record, m.shiftLeft(element, m.i32(2)))});
          return true;
        }
        m.storeByte(scalar(store.getValue()), memory, {Value(), m.add(record, element)});
        byFirstLane([&] {
          Value scale = m.add(m.add(record, m.shiftLeft(group, m.i32(2))), m.i32(kQuantum * type.getGroups()));
          m.storeWord(m.toBits(scalar(store.getScale())), memory, {Value(), scale});
          m.storeWord(scalar(store.getSum()), memory, {Value(), m.add(scale, m.i32(4 * type.getGroups()))});
        });
        return true;
      })
      .Case<SpanDotOp>([&](SpanDotOp dot) {
        known[dot.getResult()] =
            lowerSpanDot(m, dot, weights.find(dot.getWeights())->second, memories[dot.getActivations()], matrices,
                         [&](Value v) { return scalar(v); });
        return true;
      })
      .Case<UnpackOp>([&](UnpackOp unpack) {
        set(unpack.getResult(), lowerUnpack(m, weights.find(unpack.getWeights())->second, scalar(unpack.getRow()),
                                            scalar(unpack.getGroup())));
        return true;
      })
      .Default([](Operation *) { return false; });
}

} // namespace freeport::vulkan
