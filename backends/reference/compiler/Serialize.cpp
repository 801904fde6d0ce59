// One register per SSA value, one instruction per op, structured control flow as jumps; nothing is optimised. Memory
// operands are known where they are used, so they are numbers in instructions and never values.
#include "backends/reference/compiler/Serialize.h"

#include "backends/reference/bytecode_generated.h"

#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/raw_ostream.h"

#include <algorithm>
#include <limits>
#include <optional>

using namespace mlir;

namespace freeport::reference {
namespace {

using bytecode::ElementType;
using bytecode::Opcode;

struct DraftConstant {
  uint32_t target;
  std::vector<uint8_t> data;
};

/// A function while it is written.
struct Draft {
  std::string name;
  uint32_t arguments = 0, scalars = 0;
  std::vector<bytecode::Register> registers;
  std::vector<DraftConstant> constants;
  std::vector<flatbuffers::Offset<bytecode::Memory>> memories;
  std::vector<uint32_t> operands;
  std::vector<bytecode::Instruction> instructions;
};

/// The opcode of an op whose operands and result are all registers, in the op's order.
std::optional<Opcode> plainOpcode(Operation *op) {
  return TypeSwitch<Operation *, std::optional<Opcode>>(op)
      .Case<arith::AddIOp>([](auto) { return Opcode::add_integer; })
      .Case<arith::SubIOp>([](auto) { return Opcode::subtract_integer; })
      .Case<arith::MulIOp>([](auto) { return Opcode::multiply_integer; })
      .Case<arith::DivSIOp>([](auto) { return Opcode::divide_signed; })
      .Case<arith::RemSIOp>([](auto) { return Opcode::remainder_signed; })
      .Case<arith::CeilDivSIOp>([](auto) { return Opcode::ceil_divide_signed; })
      .Case<arith::AndIOp>([](auto) { return Opcode::bitwise_and; })
      .Case<arith::OrIOp>([](auto) { return Opcode::bitwise_or; })
      .Case<arith::XOrIOp>([](auto) { return Opcode::bitwise_xor; })
      .Case<arith::ShLIOp>([](auto) { return Opcode::shift_left; })
      .Case<arith::ShRUIOp>([](auto) { return Opcode::shift_right_unsigned; })
      .Case<arith::ShRSIOp>([](auto) { return Opcode::shift_right_signed; })
      .Case<arith::MinSIOp>([](auto) { return Opcode::minimum_signed; })
      .Case<arith::MaxSIOp>([](auto) { return Opcode::maximum_signed; })
      .Case<arith::CmpIOp>([](auto) { return Opcode::compare_integer; })
      .Case<arith::CmpFOp>([](auto) { return Opcode::compare_float; })
      .Case<arith::SelectOp>([](auto) { return Opcode::select; })
      .Case<arith::AddFOp>([](auto) { return Opcode::add_float; })
      .Case<arith::SubFOp>([](auto) { return Opcode::subtract_float; })
      .Case<arith::MulFOp>([](auto) { return Opcode::multiply_float; })
      .Case<arith::DivFOp>([](auto) { return Opcode::divide_float; })
      .Case<arith::NegFOp>([](auto) { return Opcode::negate_float; })
      .Case<arith::SIToFPOp>([](auto) { return Opcode::signed_to_float; })
      .Case<arith::FPToSIOp>([](auto) { return Opcode::float_to_signed; })
      .Case<arith::ExtFOp>([](auto) { return Opcode::extend_float; })
      .Case<arith::TruncFOp>([](auto) { return Opcode::truncate_float; })
      .Case<arith::IndexCastOp, arith::ExtSIOp, arith::TruncIOp>([](auto) { return Opcode::resize_signed; })
      .Case<arith::ExtUIOp>([](auto) { return Opcode::extend_unsigned; })
      .Case<arith::BitcastOp>([](auto) { return Opcode::bitcast; })
      .Case<kernel::ProgramIdOp>([](auto) { return Opcode::program_id; })
      .Case<kernel::LaneIdOp>([](auto) { return Opcode::lane_id; })
      .Case<kernel::LoadOp>([](auto) { return Opcode::load; })
      .Case<kernel::LoadLanesOp>([](auto) { return Opcode::load_lanes; })
      .Case<kernel::GatherOp>([](auto) { return Opcode::gather; })
      .Case<kernel::StoreOp>([](auto) { return Opcode::store; })
      .Case<kernel::StoreLanesOp>([](auto) { return Opcode::store_lanes; })
      .Case<kernel::ScatterOp>([](auto) { return Opcode::scatter; })
      .Case<kernel::ReduceOp>([](auto) { return Opcode::reduce; })
      .Case<kernel::ScanOp>([](auto) { return Opcode::scan; })
      .Case<kernel::BroadcastOp>([](auto) { return Opcode::pick_lane; })
      .Case<kernel::SqrtOp>([](auto) { return Opcode::square_root; })
      .Case<kernel::UnpackOp>([](auto) { return Opcode::unpack; })
      .Default([](auto) { return std::nullopt; });
}

/// The relations (bytecode.fbs) under which `predicate` holds. arith counts ordered ones up to `ord`, then unordered
/// ones from `ueq` to `une`, then `uno`.
uint8_t relationsOf(arith::CmpFPredicate predicate) {
  auto number = static_cast<uint8_t>(predicate);
  if (predicate == arith::CmpFPredicate::UNO)
    return 8;
  if (predicate == arith::CmpFPredicate::AlwaysTrue)
    return 15;
  return predicate < arith::CmpFPredicate::UEQ ? number : number + 1;
}
static_assert(static_cast<int>(arith::CmpFPredicate::ORD) == 7 && static_cast<int>(arith::CmpFPredicate::UEQ) == 8 &&
              static_cast<int>(arith::CmpFPredicate::UNE) == 13 && static_cast<int>(arith::CmpIPredicate::uge) == 9);

/// The predicate, kind or dimension of an op that has one.
uint8_t detailOf(Operation *op) {
  return TypeSwitch<Operation *, uint8_t>(op)
      .Case<arith::CmpIOp>([](auto compare) { return static_cast<uint8_t>(compare.getPredicate()); })
      .Case<arith::CmpFOp>([](auto compare) { return relationsOf(compare.getPredicate()); })
      .Case<kernel::ReduceOp>([](auto reduce) { return static_cast<uint8_t>(reduce.getKind()); })
      .Case<kernel::ProgramIdOp>([](auto id) { return static_cast<uint8_t>(id.getDimension()); })
      .Default([](auto) { return 0; });
}
std::optional<ElementType> elementOf(Type type) {
  if (type.isInteger(1))
    return ElementType::i1;
  if (type.isInteger(8))
    return ElementType::i8;
  if (type.isInteger(16))
    return ElementType::i16;
  if (type.isInteger(32))
    return ElementType::i32;
  if (type.isInteger(64) || type.isIndex())
    return ElementType::i64;
  if (type.isF16())
    return ElementType::f16;
  if (type.isF32())
    return ElementType::f32;
  return std::nullopt;
}

template <typename T> std::string text(const T &printable) {
  std::string result;
  llvm::raw_string_ostream(result) << printable;
  return result;
}

class FunctionWriter {
public:
  FunctionWriter(kernel::FuncOp function, flatbuffers::FlatBufferBuilder &builder)
      : function(function), builder(builder) {}

  llvm::Expected<Draft> write();

private:
  llvm::Error fail(Operation *op, const std::string &reason) {
    return llvm::createStringError("reference: kernel '" + function.getName().str() +
                                   "': " + op->getName().getStringRef().str() + ": " + reason);
  }

  llvm::Error writeArguments();
  llvm::Error writeBlock(Block &block);
  llvm::Error writeOperation(Operation *op);
  llvm::Error writeConstant(arith::ConstantOp op);
  llvm::Error writeBroadcast(vector::BroadcastOp op);
  llvm::Error writeFor(scf::ForOp op);
  llvm::Error writeIf(scf::IfOp op);
  llvm::Error writeSpanDot(kernel::SpanDotOp op);
  llvm::Error checkFloats(Operation *op);

  /// A new register of `type`.
  llvm::Expected<uint32_t> addRegister(Operation *op, Type type);
  /// A new register for `value`, a result or block argument of `op`.
  llvm::Expected<uint32_t> define(Operation *op, Value value);
  uint32_t addRegister(ElementType element, uint32_t count);
  uint32_t addIndexConstant(int64_t value);
  /// The offset of position `position` in `type`: what is static in elements, and a register with the rest or none.
  std::pair<int64_t, std::optional<uint32_t>> writePosition(ArrayRef<OpFoldResult> position, VectorType type);
  void addMemory(Value value, int64_t localElements);
  uint32_t numberOf(Value value) const { return numbers.lookup(value); }

  size_t emit(Opcode opcode, uint32_t result, ArrayRef<uint32_t> operands, uint8_t detail = 0, int64_t immediate = 0);
  int64_t here() const { return static_cast<int64_t>(draft.instructions.size()); }
  /// Sends the jump at `instruction` to what is emitted next.
  void land(size_t instruction);
  void copy(uint32_t from, uint32_t to) {
    if (from != to)
      emit(Opcode::copy, to, {from});
  }

  kernel::FuncOp function;
  flatbuffers::FlatBufferBuilder &builder;
  Draft draft;
  llvm::DenseMap<Value, uint32_t> numbers; // of registers, and of memories
};

//===-- Registers and memories
//--------------------------------------------------------------------------------------===//

uint32_t FunctionWriter::addRegister(ElementType element, uint32_t count) {
  draft.registers.emplace_back(element, count);
  return static_cast<uint32_t>(draft.registers.size() - 1);
}

llvm::Expected<uint32_t> FunctionWriter::addRegister(Operation *op, Type type) {
  auto vector = dyn_cast<VectorType>(type);
  std::optional<ElementType> element = elementOf(vector ? vector.getElementType() : type);
  if (!element || (vector && vector.isScalable()))
    return fail(op, "expects scalars or vectors of i1, i8, i16, i32, i64, index, f16 or f32, got " + text(type));
  int64_t count = vector ? vector.getNumElements() : 1;
  if (count < 1 || count > (1 << 20))
    return fail(op, "expects at most 2^20 elements, got " + text(type));
  return addRegister(*element, static_cast<uint32_t>(count));
}

llvm::Expected<uint32_t> FunctionWriter::define(Operation *op, Value value) {
  llvm::Expected<uint32_t> number = addRegister(op, value.getType());
  if (number)
    numbers[value] = *number;
  return number;
}

uint32_t FunctionWriter::addIndexConstant(int64_t value) {
  uint32_t number = addRegister(ElementType::i64, 1);
  std::vector<uint8_t> data(sizeof(value));
  memcpy(data.data(), &value, sizeof(value));
  draft.constants.push_back({number, std::move(data)});
  return number;
}

void FunctionWriter::addMemory(Value value, int64_t localElements) {
  numbers[value] = static_cast<uint32_t>(draft.memories.size());
  bytecode::MemoryKind kind = bytecode::MemoryKind::buffer;
  ElementType element = ElementType::f32;
  auto format = bytecode::BlockFormat::f32;
  int64_t entries = 0, rows = 0, inputs = 0, stride = 0;
  if (auto buffer = dyn_cast<kernel::BufferType>(value.getType())) {
    element = *elementOf(buffer.getElementType());
  } else if (auto activations = dyn_cast<kernel::ActivationsType>(value.getType())) {
    kind = bytecode::MemoryKind::activations;
    element = *elementOf(activations.getElementType());
    inputs = activations.getWidth();
  } else {
    auto weights = cast<kernel::WeightsType>(value.getType());
    kind = bytecode::MemoryKind::weights;
    format = static_cast<bytecode::BlockFormat>(weights.getFormat());
    entries = weights.hasDynamicEntries() ? -1 : weights.getEntries();
    rows = weights.getRows();
    inputs = weights.getInputs();
    stride = weights.getEntryStride();
  }
  draft.memories.push_back(
      bytecode::CreateMemory(builder, kind, element, localElements, format, entries, rows, inputs, stride));
}

size_t FunctionWriter::emit(Opcode opcode, uint32_t result, ArrayRef<uint32_t> operands, uint8_t detail,
                            int64_t immediate) {
  auto first = static_cast<uint32_t>(draft.operands.size());
  draft.operands.insert(draft.operands.end(), operands.begin(), operands.end());
  draft.instructions.emplace_back(opcode, detail, static_cast<uint16_t>(operands.size()), result, first, immediate);
  return draft.instructions.size() - 1;
}

void FunctionWriter::land(size_t instruction) {
  const bytecode::Instruction &old = draft.instructions[instruction];
  draft.instructions[instruction] =
      bytecode::Instruction(old.opcode(), old.detail(), old.operand_count(), old.result(), old.operands(), here());
}

//===-- Ops
//---------------------------------------------------------------------------------------------------------===//

llvm::Error FunctionWriter::writeArguments() {
  draft.name = function.getName().str();
  for (BlockArgument argument : function.getArguments()) {
    if (!argument.getType().isIndex()) {
      addMemory(argument, 0);
      ++draft.arguments;
      continue;
    }
    llvm::Expected<uint32_t> number = define(function, argument);
    if (!number)
      return number.takeError();
    ++draft.scalars;
  }
  return llvm::Error::success();
}

llvm::Error FunctionWriter::writeConstant(arith::ConstantOp op) {
  llvm::Expected<uint32_t> number = define(op, op.getResult());
  if (!number)
    return number.takeError();
  ElementType element = draft.registers[*number].element();
  unsigned bytes = element == ElementType::i64                                  ? 8
                   : element == ElementType::i32 || element == ElementType::f32 ? 4
                   : element == ElementType::i16 || element == ElementType::f16 ? 2
                                                                                : 1;
  std::vector<uint8_t> data;
  auto append = [&](const APInt &bits) {
    uint64_t value = bits.getZExtValue();
    for (unsigned i = 0; i < bytes; ++i)
      data.push_back(static_cast<uint8_t>(value >> (8 * i)));
  };
  auto appendAttribute = [&](Attribute attribute) {
    if (auto real = dyn_cast<FloatAttr>(attribute))
      append(real.getValue().bitcastToAPInt());
    else
      append(cast<IntegerAttr>(attribute).getValue());
  };
  if (auto elements = dyn_cast<DenseElementsAttr>(op.getValue())) {
    if (elements.isSplat())
      appendAttribute(elements.getSplatValue<Attribute>());
    else
      for (Attribute each : elements.getValues<Attribute>())
        appendAttribute(each);
  } else if (isa<FloatAttr, IntegerAttr>(op.getValue())) {
    appendAttribute(op.getValue());
  } else {
    return fail(op, "expects numbers or dense elements, got " + text(op.getValue()));
  }
  draft.constants.push_back({*number, std::move(data)});
  return llvm::Error::success();
}

std::pair<int64_t, std::optional<uint32_t>> FunctionWriter::writePosition(ArrayRef<OpFoldResult> position,
                                                                          VectorType type) {
  int64_t offset = 0, stride = type.getNumElements();
  std::optional<uint32_t> rest;
  for (auto [index, size] : llvm::zip(position, type.getShape())) {
    stride /= size;
    if (auto attribute = dyn_cast<Attribute>(index)) {
      offset += cast<IntegerAttr>(attribute).getInt() * stride;
      continue;
    }
    uint32_t product = addRegister(ElementType::i64, 1);
    emit(Opcode::multiply_integer, product, {numberOf(cast<Value>(index)), addIndexConstant(stride)});
    if (rest) {
      uint32_t sum = addRegister(ElementType::i64, 1);
      emit(Opcode::add_integer, sum, {*rest, product});
      product = sum;
    }
    rest = product;
  }
  return {offset, rest};
}

llvm::Error FunctionWriter::writeBroadcast(vector::BroadcastOp op) {
  llvm::Expected<uint32_t> result = define(op, op.getResult());
  if (!result)
    return result.takeError();
  uint32_t source = numberOf(op.getSource());
  auto from = dyn_cast<VectorType>(op.getSourceType());
  VectorType to = op.getResultVectorType();
  // Without its leading ones, a source that is a suffix of the result's shape repeats as a whole.
  ArrayRef<int64_t> shape = from ? from.getShape() : ArrayRef<int64_t>();
  while (!shape.empty() && shape.front() == 1)
    shape = shape.drop_front();
  if (to.getShape().take_back(shape.size()) == shape) {
    emit(Opcode::tile, *result, {source});
    return llvm::Error::success();
  }
  // Otherwise every element is fetched from its place; only vectors stretched in the middle come here.
  ArrayRef<int64_t> sizes = to.getShape();
  uint32_t element = addRegister(*elementOf(to.getElementType()), 1);
  for (int64_t place = 0; place < to.getNumElements(); ++place) {
    int64_t rest = place, offset = 0, stride = 1;
    for (size_t back = 0; back < shape.size(); ++back) {
      int64_t size = sizes[sizes.size() - 1 - back], own = shape[shape.size() - 1 - back];
      offset += own == 1 ? 0 : rest % size * stride;
      rest /= size;
      stride *= own;
    }
    emit(Opcode::extract, element, {source}, 0, offset);
    emit(Opcode::insert, *result, {element, *result}, 0, place);
  }
  return llvm::Error::success();
}

llvm::Error FunctionWriter::writeFor(scf::ForOp op) {
  if (!op.getInductionVar().getType().isIndex() && !op.getInductionVar().getType().isInteger(32) &&
      !op.getInductionVar().getType().isInteger(64))
    return fail(op, "expects bounds of index, i32 or i64, got " + text(op.getInductionVar().getType()));
  std::vector<uint32_t> carried;
  for (auto [argument, result, initial] : llvm::zip(op.getRegionIterArgs(), op.getResults(), op.getInitArgs())) {
    llvm::Expected<uint32_t> number = define(op, argument);
    if (!number)
      return number.takeError();
    numbers[result] = *number;
    copy(numberOf(initial), *number);
    carried.push_back(*number);
  }
  llvm::Expected<uint32_t> counter = define(op, op.getInductionVar());
  if (!counter)
    return counter.takeError();
  uint32_t lower = numberOf(op.getLowerBound()), upper = numberOf(op.getUpperBound()), step = numberOf(op.getStep());
  size_t start = emit(Opcode::loop, *counter, {lower, upper, step});
  int64_t body = here();
  if (llvm::Error error = writeBlock(*op.getBody()))
    return error;
  // All carried values change at once: one that another still reads is first put aside.
  OperandRange yielded = cast<scf::YieldOp>(op.getBody()->getTerminator()).getResults();
  std::vector<uint32_t> sources;
  for (auto [index, value] : llvm::enumerate(yielded)) {
    uint32_t source = numberOf(value);
    if (source != carried[index] && llvm::is_contained(carried, source)) {
      uint32_t aside = addRegister(draft.registers[source].element(), draft.registers[source].count());
      copy(source, aside);
      source = aside;
    }
    sources.push_back(source);
  }
  for (auto [source, target] : llvm::zip(sources, carried))
    copy(source, target);
  emit(Opcode::next, *counter, {upper, step}, 0, body);
  land(start);
  return llvm::Error::success();
}

llvm::Error FunctionWriter::writeIf(scf::IfOp op) {
  for (Value result : op.getResults()) {
    llvm::Expected<uint32_t> number = define(op, result);
    if (!number)
      return number.takeError();
  }
  auto writeBranch = [&](Block &block) -> llvm::Error {
    if (llvm::Error error = writeBlock(block))
      return error;
    for (auto [value, result] : llvm::zip(block.getTerminator()->getOperands(), op.getResults()))
      copy(numberOf(value), numberOf(result));
    return llvm::Error::success();
  };
  size_t branch = emit(Opcode::branch_unless, 0, {numberOf(op.getCondition())});
  if (llvm::Error error = writeBranch(*op.thenBlock()))
    return error;
  if (!op.elseBlock()) {
    land(branch);
    return llvm::Error::success();
  }
  size_t end = emit(Opcode::jump, 0, {});
  land(branch);
  if (llvm::Error error = writeBranch(*op.elseBlock()))
    return error;
  land(end);
  return llvm::Error::success();
}

llvm::Error FunctionWriter::writeSpanDot(kernel::SpanDotOp op) {
  llvm::Expected<uint32_t> result = define(op, op.getResult());
  if (!result)
    return result.takeError();
  std::vector<uint32_t> operands = {numberOf(op.getWeights()), numberOf(op.getActivations()), numberOf(op.getSpan())};
  if (op.getEntry())
    operands.push_back(numberOf(op.getEntry()));
  for (Value rowBlock : op.getRowBlocks())
    operands.push_back(numberOf(rowBlock));
  for (Value token : op.getTokens())
    operands.push_back(numberOf(token));
  if (operands.size() > std::numeric_limits<uint16_t>::max())
    return fail(op, "expects fewer than 2^16 row blocks and tokens");
  emit(Opcode::span_dot, *result, operands, 0, static_cast<int64_t>(op.getRowBlocks().size()));
  return llvm::Error::success();
}

/// Float arithmetic is f32; f16 is only stored, loaded, moved and converted.
llvm::Error FunctionWriter::checkFloats(Operation *op) {
  bool converts = isa<arith::ExtFOp, arith::TruncFOp>(op);
  bool computes = isa<arith::AddFOp, arith::SubFOp, arith::MulFOp, arith::DivFOp, arith::NegFOp, arith::CmpFOp,
                      arith::SIToFPOp, arith::FPToSIOp>(op);
  for (Type type :
       llvm::concat<const Type>(llvm::to_vector(op->getOperandTypes()), llvm::to_vector(op->getResultTypes()))) {
    Type element = getElementTypeOrSelf(type);
    if (computes && isa<FloatType>(element) && !element.isF32())
      return fail(op, "expects f32, got " + text(type));
  }
  if (converts && op->getOperand(0).getType() == op->getResult(0).getType())
    return fail(op, "expects a conversion between f16 and f32, got " + text(op->getOperand(0).getType()));
  return llvm::Error::success();
}

llvm::Error FunctionWriter::writeOperation(Operation *op) {
  if (isa<scf::YieldOp>(op))
    return llvm::Error::success();
  if (auto constant = dyn_cast<arith::ConstantOp>(op))
    return writeConstant(constant);
  if (auto broadcast = dyn_cast<vector::BroadcastOp>(op))
    return writeBroadcast(broadcast);
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return writeFor(loop);
  if (auto branch = dyn_cast<scf::IfOp>(op))
    return writeIf(branch);
  if (auto dot = dyn_cast<kernel::SpanDotOp>(op))
    return writeSpanDot(dot);
  if (isa<kernel::ReturnOp>(op)) {
    emit(Opcode::finish, 0, {});
    return llvm::Error::success();
  }
  if (auto local = dyn_cast<kernel::LocalOp>(op)) {
    addMemory(local.getBuffer(), static_cast<int64_t>(local.getElements()));
    return llvm::Error::success();
  }
  if (llvm::Error error = checkFloats(op))
    return error;
  std::vector<uint32_t> operands;
  for (Value operand : op->getOperands())
    operands.push_back(numberOf(operand));
  uint32_t result = 0;
  for (auto [index, value] : llvm::enumerate(op->getResults())) {
    llvm::Expected<uint32_t> number = define(op, value);
    if (!number)
      return number.takeError();
    if (index == 0)
      result = *number;
    else
      operands.push_back(*number);
  }
  if (std::optional<Opcode> opcode = plainOpcode(op)) {
    emit(*opcode, result, operands, detailOf(op));
  } else if (isa<kernel::ArgmaxOp>(op)) {
    emit(Opcode::argmax, result, operands);
  } else if (auto extract = dyn_cast<vector::ExtractOp>(op)) {
    auto [offset, rest] = writePosition(extract.getMixedPosition(), extract.getSourceVectorType());
    operands.resize(1);
    if (rest)
      operands.push_back(*rest);
    emit(Opcode::extract, result, operands, 0, offset);
  } else if (auto insert = dyn_cast<vector::InsertOp>(op)) {
    auto [offset, rest] = writePosition(insert.getMixedPosition(), insert.getDestVectorType());
    operands.resize(2);
    if (rest)
      operands.push_back(*rest);
    emit(Opcode::insert, result, operands, 0, offset);
  } else if (auto stage = dyn_cast<kernel::StageOp>(op)) {
    operands.push_back(static_cast<uint32_t>(stage.getColumns()));
    emit(Opcode::stage, 0, operands, 0, static_cast<int64_t>(stage.getPitch()));
  } else if (auto store = dyn_cast<kernel::StoreGroupOp>(op)) {
    operands = {numberOf(store.getValue()), numberOf(store.getActivations()), numberOf(store.getToken()),
                numberOf(store.getGroup())};
    if (store.getScale())
      operands.insert(operands.end(), {numberOf(store.getScale()), numberOf(store.getSum())});
    emit(Opcode::store_group, 0, operands);
  } else {
    return fail(op, "expects an op of the kernel dialect or its closed list of upstream ops");
  }
  return llvm::Error::success();
}

llvm::Error FunctionWriter::writeBlock(Block &block) {
  for (Operation &op : block)
    if (llvm::Error error = writeOperation(&op))
      return error;
  return llvm::Error::success();
}

llvm::Expected<Draft> FunctionWriter::write() {
  if (llvm::Error error = writeArguments())
    return error;
  if (llvm::Error error = writeBlock(function.getBody().front()))
    return error;
  return std::move(draft);
}

flatbuffers::Offset<bytecode::Function> finish(const Draft &draft, flatbuffers::FlatBufferBuilder &builder) {
  std::vector<flatbuffers::Offset<bytecode::Constant>> constants;
  for (const DraftConstant &each : draft.constants)
    constants.push_back(bytecode::CreateConstant(builder, each.target, builder.CreateVector(each.data)));
  return bytecode::CreateFunction(
      builder, builder.CreateString(draft.name), draft.arguments, builder.CreateVector(draft.memories), draft.scalars,
      builder.CreateVectorOfStructs(draft.registers), builder.CreateVector(constants),
      builder.CreateVector(draft.operands), builder.CreateVectorOfStructs(draft.instructions));
}

} // namespace

llvm::Error checkFunction(kernel::FuncOp function) {
  flatbuffers::FlatBufferBuilder builder;
  return FunctionWriter(function, builder).write().takeError();
}

llvm::Expected<std::vector<char>> serializeModule(ModuleOp module) {
  std::vector<kernel::FuncOp> functions(module.getOps<kernel::FuncOp>().begin(), module.getOps<kernel::FuncOp>().end());
  llvm::sort(functions, [](kernel::FuncOp a, kernel::FuncOp b) { return a.getName() < b.getName(); });
  flatbuffers::FlatBufferBuilder builder;
  std::vector<flatbuffers::Offset<bytecode::Function>> offsets;
  for (kernel::FuncOp function : functions) {
    llvm::Expected<Draft> draft = FunctionWriter(function, builder).write();
    if (!draft)
      return draft.takeError();
    offsets.push_back(finish(*draft, builder));
  }
  bytecode::FinishModuleBuffer(builder, bytecode::CreateModule(builder, builder.CreateVector(offsets)));
  const auto *bytes = reinterpret_cast<const char *>(builder.GetBufferPointer());
  return std::vector<char>(bytes, bytes + builder.GetSize());
}

} // namespace freeport::reference
