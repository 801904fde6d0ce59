// The pass freeport-cpu-lower-kernel. A program's 32 lanes become vectors of 32, which LLVM cuts into four registers;
// memory operands become pointers; each kernel op but span_dot (SpanDot.cpp) has one function below.
#include "backends/cpu/compiler/KernelLowering.h"
#include "backends/cpu/compiler/Pipeline.h"

#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/Debug.h"

#define DEBUG_TYPE "freeport-cpu-lower-kernel"

using namespace mlir;

namespace freeport::cpu {
namespace {

using namespace kernel;

bool isMemory(Type type) { return isa<BufferType, WeightsType, ActivationsType>(type); }

class KernelLowering {
public:
  KernelLowering(FuncOp function, const Profile &profile)
      : function(function), builder(function), m(builder, function.getLoc(), profile) {}
  LogicalResult run();

private:
  void lower(Operation *op);
  Value lower(LoadOp op);
  Value lower(LoadLanesOp op);
  Value lower(GatherOp op);
  Value lower(kernel::BroadcastOp op);
  void lower(StoreOp op);
  void lower(StoreLanesOp op);
  void lower(ScatterOp op);
  void lower(StageOp op);
  void lower(StoreGroupOp op);
  Value lower(ReduceOp op);
  void lower(ArgmaxOp op);
  Value lower(ScanOp op);
  Value lower(UnpackOp op);
  Value lower(math::ExpOp op);

  Value combine(ReduceKind kind, Value a, Value b);
  /// Addresses of `pointer`'s elements base + offsets[lane].
  Value laneAddresses(Value pointer, Type element, Value base, Value offsets);
  Value maskOrAll(Value mask);
  SmallVector<Value> signMasks(Value mask);

  FuncOp function;
  OpBuilder builder;
  Machine m;
  DenseMap<Value, Value> pointers;
  DenseMap<Value, Value> spilled; ///< vectors in memory, for lanes whose number is not constant
  SmallVector<Value> grid;
};

LogicalResult KernelLowering::run() {
  WalkResult walk = function.getBody().walk([&](Operation *op) {
    bool memory = llvm::any_of(op->getOperandTypes(), isMemory) || llvm::any_of(op->getResultTypes(), isMemory);
    if (!memory || isa<KernelDialect>(op->getDialect()))
      return WalkResult::advance();
    op->emitOpError("expects memory operands to go from arguments and kernel.local to kernel ops directly");
    return WalkResult::interrupt();
  });
  if (walk.wasInterrupted())
    return failure();

  auto pointer = LLVM::LLVMPointerType::get(builder.getContext());
  Type i64 = builder.getI64Type();
  auto type = builder.getFunctionType({pointer, pointer, i64, i64, i64}, {});
  auto lowered = m.create<func::FuncOp>(function.getSymName(), type);
  Block *entry = lowered.addEntryBlock();
  builder.setInsertionPointToEnd(entry);
  for (Value id : entry->getArguments().drop_front(2))
    grid.push_back(m.create<arith::IndexCastOp>(builder.getIndexType(), id));
  unsigned memories = function.getNumMemoryArguments();
  for (auto [number, argument] : llvm::enumerate(function.getArguments())) {
    if (isMemory(argument.getType())) {
      pointers[argument] = m.load(pointer, m.address(entry->getArgument(0), 8 * number));
      continue;
    }
    Value scalar = m.load(i64, m.address(entry->getArgument(1), 8 * (number - memories)));
    argument.replaceAllUsesWith(m.create<arith::IndexCastOp>(builder.getIndexType(), scalar));
  }
  entry->getOperations().splice(entry->end(), function.getBody().front().getOperations());

  SmallVector<Operation *> operations;
  lowered.walk<WalkOrder::PreOrder>([&](Operation *op) {
    if (isa<KernelDialect>(op->getDialect()) || isa<math::ExpOp>(op))
      operations.push_back(op);
  });
  for (Operation *op : operations) {
    builder.setInsertionPoint(op);
    m.location = op->getLoc();
    lower(op);
  }
  for (Operation *op : llvm::reverse(operations)) // at the end: a kernel.local stands for its pointer until then
    op->erase();
  function.erase();
  return success();
}

void KernelLowering::lower(Operation *op) {
  auto replace = [&](Value value) { op->getResult(0).replaceAllUsesWith(value); };
  TypeSwitch<Operation *>(op)
      .Case<ReturnOp>([&](ReturnOp) { m.create<func::ReturnOp>(); })
      .Case<ProgramIdOp>([&](ProgramIdOp id) { replace(grid[static_cast<int>(id.getDimension())]); })
      .Case<LaneIdOp>([&](LaneIdOp) {
        replace(
            m.create<arith::ConstantOp>(builder.getI32VectorAttr(llvm::to_vector(llvm::seq<int32_t>(0, kQuantum)))));
      })
      .Case<LocalOp>([&](LocalOp local) {
        int64_t width = local.getBuffer().getType().getElementType().getIntOrFloatBitWidth() / 8;
        pointers[local.getBuffer()] = m.stack(width * local.getElements());
      })
      .Case<LoadOp, LoadLanesOp, GatherOp, kernel::BroadcastOp, ReduceOp, ScanOp, UnpackOp, math::ExpOp>(
          [&](auto typed) { replace(lower(typed)); })
      .Case<StoreOp, StoreLanesOp, ScatterOp, StageOp, StoreGroupOp, ArgmaxOp>([&](auto typed) { lower(typed); })
      .Case<SqrtOp>([&](SqrtOp root) { replace(m.create<LLVM::SqrtOp>(root.getValue())); })
      .Case<SpanDotOp>([&](SpanDotOp dot) {
        replace(lowerSpanDot(m, dot, pointers.at(dot.getWeights()), pointers.at(dot.getActivations())));
      })
      .Default([](Operation *) { llvm_unreachable("a kernel op without a lowering"); });
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

static uint32_t bytesOf(Type element) { return element.getIntOrFloatBitWidth() / 8; }

Value KernelLowering::maskOrAll(Value mask) {
  if (mask)
    return mask;
  return m.create<arith::ConstantOp>(builder.getBoolVectorAttr(SmallVector<bool>(kQuantum, true)));
}

/// The mask as four vectors of 8 integers, ~0 where it is set. For masked accesses of 32-bit lanes of AVX2 LLVM 19
/// takes the zero part of a mask such as `x & <1, …, 1, 0, …, 0>` for ones, so that these go through the
/// instructions' intrinsics.
SmallVector<Value> KernelLowering::signMasks(Value mask) {
  Value wide = m.create<arith::ExtSIOp>(m.lanes(kQuantum, builder.getI32Type()), mask);
  SmallVector<Value> parts;
  for (int64_t part = 0; part < kQuantum / 8; ++part)
    parts.push_back(m.slice(wide, 8 * part, 8));
  return parts;
}

Value KernelLowering::laneAddresses(Value pointer, Type element, Value base, Value offsets) {
  Type type = LLVM::getVectorType(pointer.getType(), kQuantum);
  return m.create<LLVM::GEPOp>(type, element, m.element(pointer, element, base), ArrayRef<LLVM::GEPArg>{offsets});
}

Value KernelLowering::lower(LoadOp op) {
  Type type = op.getResult().getType();
  return m.load(type, m.element(pointers.at(op.getBuffer()), type, op.getBase()));
}

Value KernelLowering::lower(LoadLanesOp op) {
  auto type = cast<VectorType>(op.getResult().getType());
  Value from = m.element(pointers.at(op.getBuffer()), type.getElementType(), op.getBase());
  if (!op.getMask())
    return m.load(type, from);
  if (bytesOf(type.getElementType()) != 4 || m.profile.architecture != Architecture::x86_64)
    return m.create<LLVM::MaskedLoadOp>(type, from, op.getMask(), m.zero(type), bytesOf(type.getElementType()));
  SmallVector<Value> parts;
  for (auto [part, mask] : llvm::enumerate(signMasks(op.getMask())))
    parts.push_back(m.intrinsic("llvm.x86.avx2.maskload.d.256", mask.getType(), {m.address(from, 32 * part), mask}));
  return m.bitcast(m.concatenate(parts), type);
}

/// The lanes go to memory where they are made: LLVM would store them again for each lane that a loop asks for.
Value KernelLowering::lower(kernel::BroadcastOp op) {
  Value value = op.getValue();
  Type element = getElementTypeOrSelf(value.getType());
  Value &slot = spilled[value];
  if (!slot) {
    OpBuilder::InsertionGuard guard(builder);
    slot = m.stack(kQuantum * bytesOf(element));
    builder.setInsertionPointAfterValue(value);
    m.store(value, slot);
  }
  return m.load(element, m.element(slot, element, op.getLane()));
}

Value KernelLowering::lower(GatherOp op) {
  auto type = cast<VectorType>(op.getResult().getType());
  Value from = laneAddresses(pointers.at(op.getBuffer()), type.getElementType(), op.getBase(), op.getOffsets());
  return m.create<LLVM::masked_gather>(type, from, maskOrAll(op.getMask()), m.zero(type),
                                       bytesOf(type.getElementType()));
}

void KernelLowering::lower(StoreOp op) {
  m.store(op.getValue(), m.element(pointers.at(op.getBuffer()), op.getValue().getType(), op.getBase()));
}

void KernelLowering::lower(StoreLanesOp op) {
  Type element = getElementTypeOrSelf(op.getValue().getType());
  Value to = m.element(pointers.at(op.getBuffer()), element, op.getBase());
  if (!op.getMask())
    return m.store(op.getValue(), to);
  if (bytesOf(element) != 4 || m.profile.architecture != Architecture::x86_64) {
    m.create<LLVM::MaskedStoreOp>(op.getValue(), to, op.getMask(), bytesOf(element));
    return;
  }
  Value bits = m.bitcast(op.getValue(), m.lanes(kQuantum, builder.getI32Type()));
  for (auto [part, mask] : llvm::enumerate(signMasks(op.getMask())))
    m.create<LLVM::CallIntrinsicOp>(TypeRange(), builder.getStringAttr("llvm.x86.avx2.maskstore.d.256"),
                                    ValueRange{m.address(to, 32 * part), mask, m.slice(bits, 8 * part, 8)});
}

void KernelLowering::lower(ScatterOp op) {
  Type element = getElementTypeOrSelf(op.getValue().getType());
  Value to = laneAddresses(pointers.at(op.getBuffer()), element, op.getBase(), op.getOffsets());
  m.create<LLVM::masked_scatter>(op.getValue(), to, maskOrAll(op.getMask()), bytesOf(element));
}

/// Transposes 8 vectors of 8 by three rounds of interleaving.
static SmallVector<Value> transpose(Machine &m, SmallVector<Value> rows) {
  static constexpr int64_t low[] = {0, 8, 1, 9, 4, 12, 5, 13}, high[] = {2, 10, 3, 11, 6, 14, 7, 15};
  static constexpr int64_t lowPairs[] = {0, 1, 8, 9, 4, 5, 12, 13}, highPairs[] = {2, 3, 10, 11, 6, 7, 14, 15};
  static constexpr int64_t lowHalf[] = {0, 1, 2, 3, 8, 9, 10, 11}, highHalf[] = {4, 5, 6, 7, 12, 13, 14, 15};
  SmallVector<Value> pairs(8), quads(8), columns(8);
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = m.shuffle(rows[i], rows[i + 1], low);
    pairs[i + 1] = m.shuffle(rows[i], rows[i + 1], high);
  }
  for (int i = 0; i < 8; i += 4)
    for (int half = 0; half < 2; ++half) {
      quads[i + 2 * half] = m.shuffle(pairs[i + half], pairs[i + 2 + half], lowPairs);
      quads[i + 2 * half + 1] = m.shuffle(pairs[i + half], pairs[i + 2 + half], highPairs);
    }
  for (int i = 0; i < 4; ++i) {
    columns[i] = m.shuffle(quads[i], quads[4 + i], lowHalf);
    columns[4 + i] = m.shuffle(quads[i], quads[4 + i], highHalf);
  }
  return columns;
}

void KernelLowering::lower(StageOp op) {
  Type element = op.getSource().getType().getElementType();
  int64_t width = bytesOf(element), columns = op.getColumns(), whole = columns / 8 * 8;
  Value source = m.element(pointers.at(op.getSource()), element, op.getBase()), target = pointers.at(op.getTarget());
  auto row = [&](Value from, int64_t number) {
    return m.address(from, m.i64(number * static_cast<int64_t>(op.getPitch()) * width));
  };
  auto toF32 = [&](Value value) -> Value {
    if (isa<FloatType>(element))
      return m.widen(value);
    Type type = m.f32();
    if (auto vector = dyn_cast<VectorType>(value.getType()))
      type = vector.clone(type);
    return m.create<arith::SIToFPOp>(type, value);
  };
  m.loop(m.i64(0), m.i64(whole), 8, {}, [&](Value column, ValueRange) -> SmallVector<Value> {
    Value from = m.address(source, m.multiply(column, m.i64(width)));
    Value to = m.address(target, m.multiply(column, m.i64(4 * kQuantum)));
    for (int64_t strip = 0; strip < kQuantum; strip += 8) {
      SmallVector<Value> rows;
      for (int64_t r = 0; r < 8; ++r)
        rows.push_back(toF32(m.load(m.lanes(8, element), row(from, strip + r))));
      for (auto [c, lanes] : llvm::enumerate(transpose(m, std::move(rows))))
        m.store(lanes, m.address(to, 4 * (kQuantum * static_cast<int64_t>(c) + strip)));
    }
    return {};
  });
  m.loop(m.i64(whole), m.i64(columns), 1, {}, [&](Value column, ValueRange) -> SmallVector<Value> {
    Value from = m.address(source, m.multiply(column, m.i64(width)));
    Value to = m.address(target, m.multiply(column, m.i64(4 * kQuantum)));
    for (int64_t r = 0; r < kQuantum; ++r)
      m.store(toF32(m.load(element, row(from, r))), m.address(to, 4 * r));
    return {};
  });
}

void KernelLowering::lower(StoreGroupOp op) {
  ActivationsType type = op.getActivations().getType();
  Value group = m.toI64(op.getGroup());
  Value record =
      m.address(pointers.at(op.getActivations()), m.multiply(m.toI64(op.getToken()), m.i64(type.getTokenBytes())));
  int64_t width = bytesOf(type.getElementType());
  m.store(op.getValue(), m.address(record, m.multiply(group, m.i64(kQuantum * width))));
  if (!type.isQuantized())
    return;
  Value scale = m.address(m.address(record, m.multiply(group, m.i64(4))), kQuantum * type.getGroups());
  m.store(op.getScale(), scale);
  m.store(op.getSum(), m.address(scale, 4 * type.getGroups()));
}

//===----------------------------------------------------------------------===//
// exp of `fast` numerics
//===----------------------------------------------------------------------===//

/// For arguments in [-87, 87]: 2^(x log2 e) as 2^n times a polynomial (minimax, degree 5) on [-1/2, 1/2]. The sum with
/// 1.5 * 2^23 rounds to n and leaves it in the low bits, where it is shifted into the exponent. Off by at most 1.5e-6.
Value KernelLowering::lower(math::ExpOp op) {
  Value x = op.getOperand();
  auto vector = dyn_cast<VectorType>(x.getType());
  auto constant = [&](uint32_t bits) -> Value {
    auto value = builder.getFloatAttr(m.f32(), APFloat(APFloat::IEEEsingle(), APInt(32, bits)));
    if (vector)
      return m.create<arith::ConstantOp>(DenseElementsAttr::get(vector, value.getValue()));
    return m.create<arith::ConstantOp>(value);
  };
  auto fused = [&](Value a, Value b, Value c) -> Value { return m.create<LLVM::FMAOp>(a, b, c); };
  Value log2e = constant(0x3FB8AA3B), shift = constant(0x4B400000);
  Value shifted = fused(x, log2e, shift);
  Value n = m.create<arith::SubFOp>(shifted, shift);
  Value rest = fused(x, log2e, m.create<arith::NegFOp>(n));
  Value p = constant(0x3AAE0473);
  for (uint32_t bits : {0x3C1E8629u, 0x3D635B72u, 0x3E75FC8Cu, 0x3F317214u, 0x3F800000u})
    p = fused(p, rest, constant(bits));
  Type integer = builder.getI32Type();
  Value places = vector ? m.splatConstant(vector.clone(integer), 23) : m.i32(23);
  integer = vector ? Type(vector.clone(integer)) : integer;
  Value exponent = m.create<arith::ShLIOp>(m.bitcast(shifted, integer), places);
  return m.bitcast(m.add(m.bitcast(p, integer), exponent), x.getType());
}

//===----------------------------------------------------------------------===//
// Lanes. Of the tree only what lane 0 depends on is computed: each round halves the vector.
//===----------------------------------------------------------------------===//

Value KernelLowering::combine(ReduceKind kind, Value a, Value b) {
  if (kind == ReduceKind::add)
    return m.add(a, b);
  bool max = kind == ReduceKind::max;
  Value wins;
  if (isa<FloatType>(getElementTypeOrSelf(a.getType())))
    wins = m.create<arith::CmpFOp>(max ? arith::CmpFPredicate::OGT : arith::CmpFPredicate::OLT, a, b);
  else
    wins = m.create<arith::CmpIOp>(max ? arith::CmpIPredicate::sgt : arith::CmpIPredicate::slt, a, b);
  return m.create<arith::SelectOp>(wins, a, b);
}

Value KernelLowering::lower(ReduceOp op) {
  Value value = op.getValue();
  for (int64_t distance = kQuantum / 2; distance; distance /= 2)
    value = combine(op.getKind(), m.slice(value, 0, distance), m.slice(value, distance, distance));
  return m.create<vector::ExtractOp>(value, ArrayRef<int64_t>{0});
}

void KernelLowering::lower(ArgmaxOp op) {
  Value value = op.getValue(), index = op.getIndices();
  for (int64_t distance = kQuantum / 2; distance; distance /= 2) {
    Value a = m.slice(value, 0, distance), b = m.slice(value, distance, distance);
    Value i = m.slice(index, 0, distance), j = m.slice(index, distance, distance);
    Value greater = m.create<arith::CmpFOp>(arith::CmpFPredicate::OGT, a, b);
    Value equal = m.create<arith::CmpFOp>(arith::CmpFPredicate::OEQ, a, b);
    Value before = m.create<arith::CmpIOp>(arith::CmpIPredicate::slt, i, j);
    Value wins = m.create<arith::OrIOp>(greater, m.create<arith::AndIOp>(equal, before));
    value = m.create<arith::SelectOp>(wins, a, b);
    index = m.create<arith::SelectOp>(wins, i, j);
  }
  op.getMaximum().replaceAllUsesWith(m.create<vector::ExtractOp>(value, ArrayRef<int64_t>{0}));
  op.getIndex().replaceAllUsesWith(m.create<vector::ExtractOp>(index, ArrayRef<int64_t>{0}));
}

Value KernelLowering::lower(ScanOp op) {
  Value value = op.getValue(), zeros = m.zero(value.getType());
  for (int64_t distance = 1; distance < kQuantum; distance *= 2) {
    // Lane l of zeros ++ value, moved up by `distance`.
    Value moved = m.shuffle(zeros, value, llvm::to_vector(llvm::seq(kQuantum - distance, 2 * kQuantum - distance)));
    value = m.add(value, moved);
  }
  return value;
}

//===----------------------------------------------------------------------===//
// Blocks
//===----------------------------------------------------------------------===//

Value KernelLowering::lower(UnpackOp op) {
  WeightsType type = op.getWeights().getType();
  BlockFormat format = type.getFormat();
  auto lanes = m.lanes(kQuantum, m.f32());
  Value row = m.toI64(op.getRow()), group = m.toI64(op.getGroup()), quantum = m.i64(kQuantum);
  Value block = m.create<arith::DivSIOp>(row, quantum), lane = m.create<arith::RemSIOp>(row, quantum);
  Value number = m.add(m.multiply(block, m.i64(type.getGroups())), group);
  Value record = m.address(pointers.at(op.getWeights()), m.multiply(number, m.i64(type.getRecordBytes())));
  Value payload = m.address(record, m.multiply(lane, m.i64(4)));
  int64_t inputsPerDword = format == BlockFormat::f32 ? 1 : format == BlockFormat::q8 ? 4 : type.isQuantized() ? 8 : 2;
  int64_t dwords = kQuantum / inputsPerDword;
  auto words = m.lanes(dwords, builder.getI32Type());
  Value bits = m.zero(words);
  for (int64_t j = 0; j < dwords; ++j)
    bits = m.create<vector::InsertOp>(m.load(builder.getI32Type(), m.address(payload, 128 * j)), bits,
                                      ArrayRef<int64_t>{j});
  Value result;
  if (format == BlockFormat::f32) {
    result = m.bitcast(bits, lanes);
  } else if (format == BlockFormat::f16) {
    result = m.widen(m.bitcast(bits, m.lanes(kQuantum, builder.getF16Type())));
  } else if (format == BlockFormat::bf16) {
    Value halves = m.bitcast(bits, m.lanes(kQuantum, builder.getI16Type()));
    auto wide = m.lanes(kQuantum, builder.getI32Type());
    result =
        m.bitcast(m.create<arith::ShLIOp>(m.create<arith::ExtUIOp>(wide, halves), m.splatConstant(wide, 16)), lanes);
  } else {
    Value codes = m.bitcast(bits, m.lanes(4 * dwords, builder.getI8Type()));
    if (format != BlockFormat::q8) {
      auto bytes = cast<VectorType>(codes.getType());
      Value low = m.create<arith::AndIOp>(codes, m.splatConstant(bytes, 15));
      Value high = m.create<arith::ShRUIOp>(codes, m.splatConstant(bytes, 4));
      SmallVector<int64_t> order;
      for (int64_t input = 0; input < kQuantum; ++input)
        order.push_back(input / 8 * 4 + input % 4 + (input % 8 < 4 ? 0 : 16));
      codes = m.shuffle(low, high, order);
      auto inputs = cast<VectorType>(codes.getType());
      // Bits above the nibbles: of the dword at 512 for q5, of one for each 16 inputs for q6_k.
      int64_t bits = format == BlockFormat::q5 ? 1 : format == BlockFormat::q6_k ? 2 : 0;
      if (bits) {
        Value words = m.zero(m.lanes(bits, builder.getI32Type()));
        for (int64_t word = 0; word < bits; ++word)
          words = m.create<vector::InsertOp>(m.load(builder.getI32Type(), m.address(payload, 512 + 128 * word)), words,
                                             ArrayRef<int64_t>{word});
        Value above = m.bitcast(words, m.lanes(4 * bits, builder.getI8Type()));
        SmallVector<int64_t> bytesOf;
        SmallVector<int8_t> shifts;
        for (int64_t input = 0; input < kQuantum; ++input) {
          bytesOf.push_back((bits == 2 ? input / 16 * 4 : 0) + input % 4);
          shifts.push_back(static_cast<int8_t>(bits == 2 ? 2 * (input / 4 % 4) : input / 4));
        }
        above = m.shuffle(above, above, bytesOf);
        Value amounts = m.create<arith::ConstantOp>(DenseElementsAttr::get(inputs, ArrayRef<int8_t>(shifts)));
        above = m.create<arith::AndIOp>(m.create<arith::ShRUIOp>(above, amounts),
                                        m.splatConstant(inputs, bits == 2 ? 3 : 1));
        codes = m.create<arith::OrIOp>(codes, m.create<arith::ShLIOp>(above, m.splatConstant(inputs, 4)));
      }
      int64_t zero = format == BlockFormat::q4     ? 8
                     : format == BlockFormat::q5   ? 16
                     : format == BlockFormat::q6_k ? 32
                                                   : 0;
      codes = m.create<arith::SubIOp>(codes, m.splatConstant(inputs, zero));
    }
    auto halfAt = [&](Value address, int64_t offset) {
      return m.widen(m.load(builder.getF16Type(), m.address(address, offset)));
    };
    auto integerAt = [&](Value address, int64_t offset, bool isSigned) -> Value {
      Value byte = m.load(builder.getI8Type(), m.address(address, offset));
      return isSigned ? m.create<arith::SIToFPOp>(m.f32(), byte).getResult()
                      : m.create<arith::UIToFPOp>(m.f32(), byte).getResult();
    };
    Value halves = m.address(record, m.multiply(lane, m.i64(2))), step, least;
    if (format == BlockFormat::q4_k) {
      step = m.splat(m.multiply(halfAt(payload, 576), integerAt(halves, 512, false)), kQuantum);
      least = m.splat(m.multiply(halfAt(payload, 578), integerAt(halves, 513, false)), kQuantum);
    } else if (format == BlockFormat::q6_k) {
      SmallVector<Value> parts;
      for (int64_t half = 0; half < 2; ++half)
        parts.push_back(m.splat(m.multiply(halfAt(payload, 770), integerAt(payload, 768 + half, true)), kQuantum / 2));
      step = m.concatenate(parts);
    } else {
      step = m.splat(halfAt(halves, format == BlockFormat::q8   ? 1024
                                    : format == BlockFormat::q5 ? 640
                                                                : 512),
                     kQuantum);
    }
    result = m.multiply(step, m.create<arith::SIToFPOp>(lanes, codes));
    if (least)
      result = m.create<arith::SubFOp>(result, least);
  }
  if (type.getInputs() % kQuantum == 0)
    return result;
  Value left = m.create<arith::SubIOp>(m.i64(type.getInputs()), m.multiply(group, quantum));
  Value count = m.splat(m.create<arith::TruncIOp>(builder.getI32Type(), left), kQuantum);
  Value ids = m.create<arith::ConstantOp>(builder.getI32VectorAttr(llvm::to_vector(llvm::seq<int32_t>(0, kQuantum))));
  Value inside = m.create<arith::CmpIOp>(arith::CmpIPredicate::slt, ids, count);
  return m.create<arith::SelectOp>(inside, result, m.zero(lanes));
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

struct LowerKernel : PassWrapper<LowerKernel, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(LowerKernel)
  LowerKernel() = default;
  LowerKernel(const LowerKernel &other) : PassWrapper(other) {}
  explicit LowerKernel(StringRef name) { profile = name.str(); }
  StringRef getArgument() const override { return DEBUG_TYPE; }
  StringRef getDescription() const override { return "Lower kernels to vectors of the CPU and LLVM pointers"; }
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<arith::ArithDialect, cf::ControlFlowDialect, func::FuncDialect, LLVM::LLVMDialect, scf::SCFDialect,
                    vector::VectorDialect>();
  }

  void runOnOperation() override {
    const Profile *named = findProfile(profile);
    if (!named) {
      getOperation().emitError("expects a profile of the cpu backend, got '") << profile << "'";
      return signalPassFailure();
    }
    for (auto function : llvm::make_early_inc_range(getOperation().getOps<FuncOp>())) {
      LLVM_DEBUG(llvm::dbgs() << "kernel @" << function.getSymName() << "\n");
      if (failed(KernelLowering(function, *named).run()))
        return signalPassFailure();
    }
  }

  Option<std::string> profile{*this, "profile", llvm::cl::init(profiles().front().name.str()),
                              llvm::cl::desc("What the processor offers: a name of Profile.cpp")};
};

} // namespace

std::unique_ptr<Pass> createLowerKernelPass(StringRef profile) { return std::make_unique<LowerKernel>(profile); }

} // namespace freeport::cpu
