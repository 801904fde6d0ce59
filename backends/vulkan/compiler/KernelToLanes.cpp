// The pass freeport-vulkan-lower-kernel. A program's 32 lanes become 32 invocations: a lane vector is one value of
// each, a uniform value is the same in all. Each kernel becomes a module of its own, with its variables and a function
// `main` in arith and scf; ops on packed weights are in SpanDot.cpp, the conversion to SPIR-V in LanesToSpirv.cpp.
#include "backends/vulkan/compiler/Hazards.h"
#include "backends/vulkan/compiler/Machine.h"
#include "backends/vulkan/compiler/Pipeline.h"

#include "mlir/Dialect/SPIRV/IR/SPIRVDialect.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace freeport::vulkan {
namespace {

using namespace kernel;

/// Scratch words that ops which exchange lanes use.
constexpr int64_t kScratchWords = 2 * kQuantum;

int64_t widthOf(Type element) { return element.isIndex() ? 32 : element.getIntOrFloatBitWidth(); }
bool isSmallInteger(Type element) { return element.isInteger() && widthOf(element) < 32 && !element.isInteger(1); }

class KernelLowering {
public:
  KernelLowering(FuncOp function, ModuleOp target, const Profile &profile)
      : function(function), target(target), builder(target.getContext()),
        m(target, builder, function.getLoc(), profile) {}

  LogicalResult run();

private:
  LogicalResult layOut();
  void lowerBlock(Block &block);
  void lower(Operation &op);
  void lowerFor(scf::ForOp op);
  void lowerIf(scf::IfOp op);
  void lowerConstant(arith::ConstantOp op);
  bool lowerShape(Operation &op);
  bool lowerArithmetic(Operation &op);
  bool lowerMemory(Operation &op);
  bool lowerLanes(Operation &op);

  SmallVector<Value> &values(Value value) { return known[value]; }
  Value scalar(Value value) { return known[value].front(); }
  void set(Value result, Value value) { known[result] = {value}; }
  unsigned countOf(Type type) {
    auto vector = dyn_cast<VectorType>(type);
    return vector ? vector.getNumElements() / kQuantum : 1;
  }

  // Integers are kept sign-extended in 32 bits, an f16 as its bits.
  Type heldAs(Type type) {
    Type element = getElementTypeOrSelf(type);
    return element.isF32() || element.isInteger(1) ? element : m.i32Type();
  }
  Value normalise(Value value, Type element) {
    return isSmallInteger(element) ? m.signExtend(value, widthOf(element)) : value;
  }
  Value asUnsigned(Value value, Type element) {
    return isSmallInteger(element) ? m.bitAnd(value, m.i32((int64_t(1) << widthOf(element)) - 1)) : value;
  }
  Value integer(Operation &op, Type element, ArrayRef<Value> operands);
  Value floating(Operation &op, ArrayRef<Value> operands);
  Value convert(Operation &op, Type from, Type to, Value value);
  Value compareFloats(arith::CmpFPredicate predicate, Value a, Value b);

  Value loadElement(Value buffer, Value index, Value mask = {});
  void storeElement(Value value, Value buffer, Value index);
  Value byteOf(Value buffer, Value index);
  Value loadRaw(const Memory &memory, Type element, Value bytes);

  // Lanes meet in shared memory, or in their subgroup.
  bool sharesLanes(Operation *op) {
    return m.profile.subgroup != kQuantum && isa<ReduceOp, ArgmaxOp, ScanOp, kernel::BroadcastOp>(op);
  }
  Value scratchAt(Value word) { return m.shiftLeft(word, m.i32(2)); }
  void publish(ArrayRef<Value> words);
  Value published(int64_t slot, Value lane);
  Value shuffle(Value value, int64_t distance);
  using Combine = function_ref<SmallVector<Value>(ArrayRef<Value>, ArrayRef<Value>)>;
  SmallVector<Value> tree(ArrayRef<Value> lanes, Combine combine);
  Value combine(ReduceKind kind, Value a, Value b);

  FuncOp function;
  ModuleOp target;
  OpBuilder builder;
  Machine m;
  DenseMap<Value, SmallVector<Value>> known;
  DenseMap<Value, Memory> memories;
  DenseMap<Value, PackedWeights> weights;
  DenseMap<Value, StageOp> virtualStages;
  Memory scratch;
  DenseSet<Operation *> barriers;
  bool supported = true;
};

//===----------------------------------------------------------------------===//
// Memory operands
//===----------------------------------------------------------------------===//

/// Bytes that a binding may show: the profile's range less what its alignment may cost, in whole 256 bytes.
int64_t usableRange(const Profile &profile) { return std::min<int64_t>(profile.range, INT32_MAX) / 256 * 256 - 256; }

LogicalResult KernelLowering::layOut() {
  auto pieces = builder.getContext();
  SmallVector<Attribute> arguments;
  unsigned count = function.getNumMemoryArguments();
  for (unsigned number = 0; number < count; ++number) {
    Value argument = function.getArgument(number);
    Memory &memory = memories[argument];
    memory.name = "argument" + std::to_string(number);
    memory.binding = 1 + number;
    SmallVector<int64_t> runs = {0, 0}; // offset and bytes of each piece; 0: to the end
    if (auto type = dyn_cast<WeightsType>(argument.getType())) {
      // A unit, an entry of a bank or a row block, lies in one piece; four of them are a multiple of 256 bytes.
      bool bank = type.isBank();
      int64_t units = bank ? type.getEntries() : type.getRowBlocks();
      int64_t unitBytes = bank ? type.getEntryStride() : type.getGroups() * type.getRecordBytes();
      int64_t lastBytes = bank ? type.getEntryBytes() : unitBytes, range = usableRange(m.profile);
      int64_t perPiece = range / unitBytes / 4 * 4;
      if ((units - 1) * unitBytes + lastBytes <= range)
        perPiece = units;
      else if (perPiece == 0)
        return function.emitOpError("expects units of weights of at most ") << range / 4 << " bytes, got " << unitBytes;
      runs.clear();
      for (int64_t first = 0; first < units; first += perPiece) {
        int64_t last = std::min(first + perPiece, units);
        runs.append({first * unitBytes, (last - first - 1) * unitBytes + (last == units ? lastBytes : unitBytes)});
      }
      memory.pieces = runs.size() / 2;
      weights.try_emplace(argument, PackedWeights{type, memory, perPiece});
    }
    arguments.push_back(DictionaryAttr::get(
        pieces, {builder.getNamedAttr("pieces", builder.getDenseI64ArrayAttr(runs)),
                 builder.getNamedAttr("written", builder.getBoolAttr(function.writesArgument(number)))}));
  }
  target->setAttr("freeport.arguments", builder.getArrayAttr(arguments));
  target->setAttr("freeport.scalars", builder.getI64IntegerAttr(function.getNumArguments() - count));

  // Local memory, a word an element. What is only staged can be read where it came from.
  int64_t bytes = 0;
  SmallVector<std::pair<int64_t, LocalOp>> stageable;
  for (auto local : function.getBody().front().getOps<LocalOp>()) {
    Memory &memory = memories[local.getBuffer()];
    memory.local = true;
    memory.name = "local" + std::to_string(memories.size());
    memory.localElements = local.getElements();
    bytes += 4 * memory.localElements;
    SmallVector<StageOp> stages;
    bool other = false;
    for (Operation *user : local.getBuffer().getUsers()) {
      if (auto stage = dyn_cast<StageOp>(user))
        stages.push_back(stage);
      else if (!isa<LoadOp, LoadLanesOp, GatherOp>(user))
        other = true;
    }
    bool inside = stages.size() == 1 && llvm::all_of(local.getBuffer().getUsers(), [&](Operation *user) {
                    return user == stages.front() || stages.front()->getBlock()->findAncestorOpInBlock(*user);
                  });
    if (inside && !other)
      stageable.push_back({4 * memory.localElements, local});
  }
  bool exchanges =
      function.getBody()
          .walk([&](Operation *op) { return sharesLanes(op) ? WalkResult::interrupt() : WalkResult::advance(); })
          .wasInterrupted();
  if (exchanges)
    bytes += 4 * kScratchWords;
  scratch.local = true;
  scratch.name = "scratch";
  scratch.localElements = kScratchWords;
  llvm::sort(stageable, [](auto &a, auto &b) { return a.first > b.first; });
  for (auto &[size, local] : stageable) {
    if (bytes <= m.profile.sharedBytes)
      break;
    bytes -= size;
    for (Operation *user : local.getBuffer().getUsers())
      if (auto stage = dyn_cast<StageOp>(user))
        virtualStages[local.getBuffer()] = stage;
  }
  if (bytes > m.profile.sharedBytes)
    return function.emitOpError("expects at most ")
           << m.profile.sharedBytes << " bytes of shared memory, got " << bytes;
  target->setAttr("freeport.shared_bytes", builder.getI64IntegerAttr(bytes));
  return success();
}

LogicalResult KernelLowering::run() {
  builder.setInsertionPointToEnd(target.getBody());
  auto main = builder.create<func::FuncOp>(function.getLoc(), "main", builder.getFunctionType({}, {}));
  builder.setInsertionPointToStart(main.addEntryBlock());
  if (failed(layOut()))
    return failure();
  m.enter();
  unsigned count = function.getNumMemoryArguments();
  for (unsigned number = 0; number < function.getNumArguments(); ++number) {
    Value word = m.parameter(3 + number);
    if (number < count)
      memories[function.getArgument(number)].byteOffset = word;
    else
      set(function.getArgument(number), word);
  }
  barriers = findBarriers(
      function, [&](Operation *op) { return sharesLanes(op); },
      [&](Value root) { return virtualStages.contains(root); });
  lowerBlock(function.getBody().front());
  m.create<func::ReturnOp>();
  if (!supported)
    return failure();
  SmallVector<Attribute> interface;
  for (spirv::GlobalVariableOp variable : m.variables)
    interface.push_back(FlatSymbolRefAttr::get(variable));
  target->setAttr("freeport.interface", builder.getArrayAttr(interface));
  return success();
}

void KernelLowering::lowerBlock(Block &block) {
  for (Operation &op : block) {
    if (op.hasTrait<OpTrait::IsTerminator>())
      return;
    m.location = op.getLoc();
    if (barriers.contains(&op))
      m.barrier();
    lower(op);
  }
}

void KernelLowering::lower(Operation &op) {
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return lowerFor(loop);
  if (auto condition = dyn_cast<scf::IfOp>(op))
    return lowerIf(condition);
  if (auto constant = dyn_cast<arith::ConstantOp>(op))
    return lowerConstant(constant);
  if (lowerShape(op) || lowerMemory(op) || lowerLanes(op) || lowerArithmetic(op))
    return;
  op.emitOpError("has no lowering to SPIR-V");
  supported = false;
  for (Value result : op.getResults())
    known[result].assign(countOf(result.getType()), m.i32(0));
}

//===----------------------------------------------------------------------===//
// Control and shape
//===----------------------------------------------------------------------===//

void KernelLowering::lowerFor(scf::ForOp op) {
  SmallVector<Value> initial;
  for (Value value : op.getInitArgs())
    initial.append(values(value));
  auto assign = [&](ValueRange targets, ValueRange flat) {
    for (Value target : targets) {
      unsigned count = countOf(target.getType());
      known[target].assign(flat.begin(), flat.begin() + count);
      flat = flat.drop_front(count);
    }
  };
  SmallVector<Value> results = m.loop(scalar(op.getLowerBound()), scalar(op.getUpperBound()), scalar(op.getStep()),
                                      initial, [&](Value induction, ValueRange carried) {
                                        set(op.getInductionVar(), induction);
                                        assign(op.getRegionIterArgs(), carried);
                                        lowerBlock(*op.getBody());
                                        SmallVector<Value> next;
                                        for (Value value : op.getBody()->getTerminator()->getOperands())
                                          next.append(values(value));
                                        return next;
                                      });
  assign(op.getResults(), results);
}

void KernelLowering::lowerIf(scf::IfOp op) {
  SmallVector<Type> types;
  for (Type type : op.getResultTypes())
    types.append(countOf(type), heldAs(type));
  auto region = [&](Block *block) {
    SmallVector<Value> results;
    if (!block)
      return results;
    lowerBlock(*block);
    for (Value value : block->getTerminator()->getOperands())
      results.append(values(value));
    return results;
  };
  SmallVector<Value> flat = m.branch(
      scalar(op.getCondition()), types, [&] { return region(op.thenBlock()); }, [&] { return region(op.elseBlock()); });
  ValueRange rest = flat;
  for (Value result : op.getResults()) {
    unsigned count = countOf(result.getType());
    known[result].assign(rest.begin(), rest.begin() + count);
    rest = rest.drop_front(count);
  }
}

void KernelLowering::lowerConstant(arith::ConstantOp op) {
  auto single = [&](Attribute attribute) -> Value {
    if (auto number = dyn_cast<FloatAttr>(attribute)) {
      uint32_t bits = number.getValue().bitcastToAPInt().getZExtValue();
      return number.getType().isF32() ? m.f32Bits(bits) : m.i32(bits);
    }
    auto number = cast<IntegerAttr>(attribute);
    if (number.getType().isInteger(1))
      return m.truth(number.getValue().getBoolValue());
    return m.i32(number.getValue().getSExtValue());
  };
  auto dense = dyn_cast<DenseElementsAttr>(op.getValue());
  if (!dense) {
    set(op.getResult(), single(op.getValue()));
    return;
  }
  if (dense.isSplat()) {
    known[op.getResult()].assign(countOf(op.getType()), single(dense.getSplatValue<Attribute>()));
    return;
  }
  SmallVector<Value> &result = known[op.getResult()];
  auto elements = llvm::to_vector(dense.getValues<Attribute>());
  for (size_t first = 0; first < elements.size(); first += kQuantum) {
    Value value = single(elements[first]);
    for (int64_t lane = 1; lane < kQuantum; ++lane)
      value = m.select(m.equal(m.lane(), m.i32(lane)), single(elements[first + lane]), value);
    result.push_back(value);
  }
}

/// vector.broadcast, extract and insert: which values a vector consists of.
bool KernelLowering::lowerShape(Operation &op) {
  if (auto broadcast = dyn_cast<vector::BroadcastOp>(op)) {
    SmallVector<Value> source = values(broadcast.getSource()), result;
    unsigned count = countOf(broadcast.getResult().getType());
    for (unsigned number = 0; number < count; ++number)
      result.push_back(source[number % source.size()]);
    known[broadcast.getResult()] = result;
    return true;
  }
  // Where a static position begins among the lane vectors of a type, or -1 for one inside a lane vector.
  auto placeOf = [&](VectorType type, ArrayRef<int64_t> position) -> int64_t {
    if (position.size() >= static_cast<size_t>(type.getRank()))
      return -1;
    int64_t place = 0;
    for (int64_t dimension = 0; dimension + 1 < type.getRank(); ++dimension)
      place = place * type.getDimSize(dimension) +
              (dimension < static_cast<int64_t>(position.size()) ? position[dimension] : 0);
    return place;
  };
  if (auto extract = dyn_cast<vector::ExtractOp>(op)) {
    int64_t place =
        extract.hasDynamicPosition() ? -1 : placeOf(extract.getSourceVectorType(), extract.getStaticPosition());
    if (place < 0)
      return false;
    SmallVector<Value> source = values(extract.getVector());
    known[extract.getResult()] = llvm::to_vector(ArrayRef(source).slice(place, countOf(extract.getResult().getType())));
    return true;
  }
  if (auto insert = dyn_cast<vector::InsertOp>(op)) {
    int64_t place = insert.hasDynamicPosition() ? -1 : placeOf(insert.getDestVectorType(), insert.getStaticPosition());
    if (place < 0)
      return false;
    SmallVector<Value> result = values(insert.getDest()), part = values(insert.getSource());
    llvm::copy(part, result.begin() + place);
    known[insert.getResult()] = result;
    return true;
  }
  return false;
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

Value KernelLowering::compareFloats(arith::CmpFPredicate predicate, Value a, Value b) {
  using Predicate = arith::CmpFPredicate;
  auto ordered = [&] { return m.bitAnd(m.compare(Predicate::OEQ, a, a), m.compare(Predicate::OEQ, b, b)); };
  auto negate = [&](Value truth) { return m.bitXor(truth, m.truth(true)); };
  switch (predicate) {
  case Predicate::AlwaysTrue:
    return m.truth(true);
  case Predicate::AlwaysFalse:
    return m.truth(false);
  case Predicate::ORD:
    return ordered();
  case Predicate::UNO:
    return negate(ordered());
  case Predicate::ONE:
    return m.bitOr(m.compare(Predicate::OLT, a, b), m.compare(Predicate::OGT, a, b));
  case Predicate::UEQ:
    return negate(m.bitOr(m.compare(Predicate::OLT, a, b), m.compare(Predicate::OGT, a, b)));
  case Predicate::UNE:
    return negate(m.compare(Predicate::OEQ, a, b));
  case Predicate::ULT:
    return negate(m.compare(Predicate::OGE, a, b));
  case Predicate::ULE:
    return negate(m.compare(Predicate::OGT, a, b));
  case Predicate::UGT:
    return negate(m.compare(Predicate::OLE, a, b));
  case Predicate::UGE:
    return negate(m.compare(Predicate::OLT, a, b));
  default:
    return m.compare(predicate, a, b);
  }
}

/// An op on integers, sign-extended to 32 bits.
Value KernelLowering::integer(Operation &op, Type element, ArrayRef<Value> v) {
  Type type = element.isInteger(1) ? element : m.i32Type();
  auto same = [&](auto typed) -> Value { return m.create<decltype(typed)>(type, v); };
  auto whole = [&](auto typed) { return normalise(same(typed), element); };
  return TypeSwitch<Operation *, Value>(&op)
      .Case<arith::AddIOp, arith::SubIOp, arith::MulIOp, arith::ShLIOp, arith::DivSIOp>(whole)
      .Case<arith::AndIOp, arith::OrIOp, arith::XOrIOp, arith::RemSIOp, arith::ShRSIOp>(same)
      .Case<arith::ShRUIOp>([&](auto) { return normalise(m.shiftRight(asUnsigned(v[0], element), v[1]), element); })
      .Case<arith::CeilDivSIOp>([&](auto) {
        Value quotient = m.create<arith::DivSIOp>(v[0], v[1]);
        Value rest = m.subtract(v[0], m.multiply(quotient, v[1]));
        Value sameSign = m.compare(arith::CmpIPredicate::sge, m.bitXor(v[0], v[1]), m.i32(0));
        Value up = m.bitAnd(sameSign, m.compare(arith::CmpIPredicate::ne, rest, m.i32(0)));
        return normalise(m.add(quotient, m.select(up, m.i32(1), m.i32(0))), element);
      })
      .Case<arith::MinSIOp>([&](auto) { return m.select(m.less(v[0], v[1]), v[0], v[1]); })
      .Case<arith::MaxSIOp>([&](auto) { return m.select(m.less(v[1], v[0]), v[0], v[1]); })
      .Case<arith::CmpIOp>([&](arith::CmpIOp compare) -> Value {
        bool isUnsigned = compare.getPredicate() >= arith::CmpIPredicate::ult;
        Value a = isUnsigned ? asUnsigned(v[0], element) : v[0], b = isUnsigned ? asUnsigned(v[1], element) : v[1];
        if (element.isInteger(1)) { // as 0 and 1, or 0 and -1 where signs count
          Value one = m.i32(isUnsigned ? 1 : -1);
          a = m.select(a, one, m.i32(0));
          b = m.select(b, one, m.i32(0));
        }
        return m.compare(compare.getPredicate(), a, b);
      })
      .Default([](Operation *) { return Value(); });
}

Value KernelLowering::floating(Operation &op, ArrayRef<Value> v) {
  return TypeSwitch<Operation *, Value>(&op)
      .Case<arith::AddFOp>([&](auto) { return m.add(v[0], v[1]); })
      .Case<arith::SubFOp>([&](auto) { return m.subtract(v[0], v[1]); })
      .Case<arith::MulFOp>([&](auto) { return m.multiply(v[0], v[1]); })
      .Case<arith::DivFOp>([&](auto) { return m.divide(v[0], v[1]); })
      .Case<arith::NegFOp>([&](auto) { return m.fromBits(m.bitXor(m.toBits(v[0]), m.i32(INT32_MIN))); })
      .Case<SqrtOp>([&](auto) { return m.squareRoot(v[0]); })
      .Case<arith::CmpFOp>([&](arith::CmpFOp compare) { return compareFloats(compare.getPredicate(), v[0], v[1]); })
      .Default([](Operation *) { return Value(); });
}

Value KernelLowering::convert(Operation &op, Type from, Type to, Value value) {
  auto toInteger = [&](Value number) -> Value {
    if (to.isInteger(1))
      return m.compare(arith::CmpIPredicate::ne, m.bitAnd(number, m.i32(1)), m.i32(0));
    return normalise(number, to);
  };
  auto truthAs = [&](int64_t one) { return m.select(value, m.i32(one), m.i32(0)); };
  bool truth = from.isInteger(1);
  return TypeSwitch<Operation *, Value>(&op)
      .Case<arith::IndexCastOp, arith::TruncIOp, arith::ExtSIOp>(
          [&](auto) { return truth ? truthAs(-1) : toInteger(value); })
      .Case<arith::ExtUIOp>([&](auto) { return truth ? truthAs(1) : asUnsigned(value, from); })
      .Case<arith::SIToFPOp>([&](auto) { return to.isF32() ? m.toFloat(truth ? truthAs(-1) : value) : Value(); })
      .Case<arith::FPToSIOp>([&](auto) { return from.isF32() ? toInteger(m.floatToInteger(value)) : Value(); })
      .Case<arith::ExtFOp>([&](auto) { return from.isF16() && to.isF32() ? m.halfToFloat(value) : Value(); })
      .Case<arith::TruncFOp>([&](auto) { return from.isF32() && to.isF16() ? m.floatToHalf(value) : Value(); })
      .Case<arith::BitcastOp>([&](auto) -> Value {
        if (from == to)
          return value;
        if (from.isF32())
          return m.toBits(value);
        if (to.isF32())
          return m.fromBits(value);
        return to.isF16() ? m.bitAnd(value, m.i32(0xFFFF)) : normalise(value, to);
      })
      .Default([](Operation *) { return Value(); });
}

bool KernelLowering::lowerArithmetic(Operation &op) {
  if (op.getNumResults() != 1)
    return false;
  Value result = op.getResult(0);
  unsigned count = countOf(result.getType());
  SmallVector<SmallVector<Value>> operands;
  for (Value operand : op.getOperands())
    operands.push_back(values(operand));
  SmallVector<Value> lowered;
  Type from = op.getNumOperands() ? getElementTypeOrSelf(op.getOperand(0).getType()) : Type();
  Type to = getElementTypeOrSelf(result.getType());
  for (unsigned number = 0; number < count; ++number) {
    SmallVector<Value> v;
    for (SmallVector<Value> &operand : operands)
      v.push_back(operand[number % operand.size()]);
    Value value;
    if (isa<arith::SelectOp>(op))
      value = m.select(v[0], v[1], v[2]);
    else if (op.getNumOperands() == 1 && !isa<arith::NegFOp, SqrtOp>(op))
      value = convert(op, from, to, v[0]);
    else if (from.isF32())
      value = floating(op, v);
    else if (from.isIntOrIndex())
      value = integer(op, from, v);
    if (!value)
      return false;
    lowered.push_back(value);
  }
  known[result] = lowered;
  return true;
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

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
        known[dot.getResult()] = lowerSpanDot(m, dot, weights.find(dot.getWeights())->second,
                                              memories[dot.getActivations()], [&](Value v) { return scalar(v); });
        return true;
      })
      .Case<UnpackOp>([&](UnpackOp unpack) {
        set(unpack.getResult(), lowerUnpack(m, weights.find(unpack.getWeights())->second, scalar(unpack.getRow()),
                                            scalar(unpack.getGroup())));
        return true;
      })
      .Default([](Operation *) { return false; });
}

//===----------------------------------------------------------------------===//
// Lanes
//===----------------------------------------------------------------------===//

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

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

struct LowerKernel : PassWrapper<LowerKernel, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(LowerKernel)
  LowerKernel() = default;
  LowerKernel(const LowerKernel &other) : PassWrapper(other) {}
  explicit LowerKernel(StringRef name, int64_t size) {
    profile = name.str();
    subgroup = size;
  }
  StringRef getArgument() const override { return "freeport-vulkan-lower-kernel"; }
  StringRef getDescription() const override { return "Lower kernels to one invocation for each lane"; }
  void getDependentDialects(DialectRegistry &registry) const override {
    registry.insert<arith::ArithDialect, func::FuncDialect, scf::SCFDialect, spirv::SPIRVDialect>();
  }
  Option<std::string> profile{*this, "profile", llvm::cl::init("baseline"),
                              llvm::cl::desc("What the device must offer: a name of Profile.cpp")};
  Option<int64_t> subgroup{*this, "subgroup", llvm::cl::init(-1),
                           llvm::cl::desc("Another subgroup size than the profile's")};

  void runOnOperation() override {
    const Profile *named = findProfile(profile);
    if (!named) {
      getOperation().emitError("expects a profile of the vulkan backend, got '") << profile << "'";
      return signalPassFailure();
    }
    Profile chosen = *named;
    if (subgroup >= 0) // a program has 32 invocations: larger subgroups are never full, and not used
      chosen.subgroup = subgroup <= kQuantum ? int64_t(subgroup) : 0;
    for (auto function : llvm::make_early_inc_range(getOperation().getOps<FuncOp>())) {
      OpBuilder builder(function);
      auto target = builder.create<ModuleOp>(function.getLoc(), function.getName());
      target->setAttr("freeport.profile", builder.getStringAttr(chosen.name));
      target->setAttr("freeport.subgroup", builder.getI64IntegerAttr(chosen.subgroup));
      function->remove(); // its name is the module's now
      LogicalResult result = KernelLowering(function, target, chosen).run();
      function->destroy();
      if (failed(result))
        return signalPassFailure();
    }
  }
};

} // namespace

std::unique_ptr<Pass> createLowerKernelPass(StringRef profile, int64_t subgroup) {
  return std::make_unique<LowerKernel>(profile, subgroup);
}

} // namespace freeport::vulkan
