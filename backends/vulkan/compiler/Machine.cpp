// Short names for ops, and memory. An argument is one or two variables on one binding: words, and bytes or halves where
// single ones are written; variables that share a binding are aliased.
#include "backends/vulkan/compiler/Machine.h"

#include "mlir/Dialect/SPIRV/IR/SPIRVTypes.h"

using namespace mlir;

namespace freeport::vulkan {

static bool isFloat(Value value) { return isa<FloatType>(value.getType()); }

Value Machine::i32(int64_t value) {
  return create<arith::ConstantOp>(builder.getI32IntegerAttr(static_cast<int32_t>(value)));
}
Value Machine::f32(float value) { return create<arith::ConstantOp>(builder.getF32FloatAttr(value)); }
Value Machine::f32Bits(uint32_t bits) { return f32(llvm::bit_cast<float>(bits)); }
Value Machine::truth(bool value) { return create<arith::ConstantOp>(builder.getBoolAttr(value)); }

Value Machine::add(Value a, Value b) {
  return isFloat(a) ? Value(create<arith::AddFOp>(a, b)) : Value(create<arith::AddIOp>(a, b));
}
Value Machine::subtract(Value a, Value b) {
  return isFloat(a) ? Value(create<arith::SubFOp>(a, b)) : Value(create<arith::SubIOp>(a, b));
}
Value Machine::multiply(Value a, Value b) {
  return isFloat(a) ? Value(create<arith::MulFOp>(a, b)) : Value(create<arith::MulIOp>(a, b));
}
Value Machine::signExtend(Value value, unsigned bits) {
  return shiftRightSigned(shiftLeft(value, i32(32 - bits)), i32(32 - bits));
}

//===----------------------------------------------------------------------===//
// Control
//===----------------------------------------------------------------------===//

SmallVector<Value> Machine::loop(Value lower, Value upper, Value step, ValueRange initial, LoopBody body) {
  auto op = create<scf::ForOp>(lower, upper, step, initial);
  OpBuilder::InsertionGuard guard(builder);
  if (initial.empty())
    builder.setInsertionPoint(op.getBody()->getTerminator());
  else
    builder.setInsertionPointToEnd(op.getBody());
  SmallVector<Value> next = body(op.getInductionVar(), op.getRegionIterArgs());
  if (initial.empty())
    return {};
  create<scf::YieldOp>(next);
  // The conversion to SPIR-V leaves the results of a loop without iterations undefined.
  builder.setInsertionPointAfter(op);
  Value any = less(lower, upper);
  SmallVector<Value> results;
  for (auto [result, start] : llvm::zip(op.getResults(), initial))
    results.push_back(select(any, result, start));
  return results;
}

SmallVector<Value> Machine::branch(Value condition, TypeRange types, Branch then, Branch otherwise) {
  auto op = create<scf::IfOp>(types, condition, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(builder);
  for (auto [region, emit] : {std::pair{&op.getThenRegion(), then}, std::pair{&op.getElseRegion(), otherwise}}) {
    Block &block = region->front();
    if (types.empty())
      builder.setInsertionPoint(block.getTerminator());
    else
      builder.setInsertionPointToEnd(&block);
    SmallVector<Value> values = emit();
    if (!types.empty())
      create<scf::YieldOp>(values);
  }
  return SmallVector<Value>(op.getResults());
}

void Machine::when(Value condition, function_ref<void()> then) {
  auto op = create<scf::IfOp>(condition, /*withElseRegion=*/false);
  OpBuilder::InsertionGuard guard(builder);
  builder.setInsertionPoint(op.thenBlock()->getTerminator());
  then();
}

void Machine::barrier() {
  create<spirv::ControlBarrierOp>(spirv::Scope::Workgroup, spirv::Scope::Workgroup,
                                  spirv::MemorySemantics::AcquireRelease | spirv::MemorySemantics::UniformMemory |
                                      spirv::MemorySemantics::WorkgroupMemory);
}

Value Machine::call(StringRef name, Type result, ValueRange arguments, function_ref<Value(ValueRange)> body) {
  auto function = module.lookupSymbol<func::FuncOp>(name);
  if (!function) {
    OpBuilder::InsertionGuard guard(builder);
    builder.setInsertionPointToEnd(module.getBody());
    function = create<func::FuncOp>(name, builder.getFunctionType(TypeRange(arguments), {result}));
    builder.setInsertionPointToStart(function.addEntryBlock());
    create<func::ReturnOp>(body(function.getArguments()));
  }
  return create<func::CallOp>(function, arguments).getResult(0);
}

//===----------------------------------------------------------------------===//
// Variables
//===----------------------------------------------------------------------===//

spirv::GlobalVariableOp Machine::variable(StringRef name, Type pointer, std::optional<uint32_t> binding,
                                          StringRef builtin, bool aliased) {
  if (auto known = module.lookupSymbol<spirv::GlobalVariableOp>(name))
    return known;
  OpBuilder::InsertionGuard guard(builder);
  builder.setInsertionPointToStart(module.getBody());
  auto op = create<spirv::GlobalVariableOp>(TypeAttr::get(pointer), builder.getStringAttr(name));
  if (binding) {
    op.setBinding(*binding);
    op.setDescriptorSet(0);
  }
  if (!builtin.empty())
    op->setAttr("built_in", this->builder.getStringAttr(builtin));
  if (aliased)
    op->setAttr("aliased", builder.getUnitAttr());
  variables.push_back(op);
  return op;
}

Value Machine::builtin(StringRef name, StringRef builtin, Type type) {
  auto op = variable(name, spirv::PointerType::get(type, spirv::StorageClass::Input), std::nullopt, builtin);
  return create<spirv::LoadOp>(create<spirv::AddressOfOp>(op));
}

static Value component(Machine &m, Value vector, int32_t number) {
  return m.create<spirv::CompositeExtractOp>(vector, ArrayRef<int32_t>{number});
}

void Machine::enter(int64_t waves) {
  auto vector = VectorType::get(3, i32Type());
  Value workgroup = builtin("workgroup_id", "WorkgroupId", vector);
  for (int dimension = 0; dimension < 3; ++dimension)
    workgroupValues[dimension] = component(*this, workgroup, dimension);
  if (profile.subgroup)
    subgroupLaneValue = builtin("subgroup_lane", "SubgroupLocalInvocationId", i32Type());
  // With whole subgroups of 32, an invocation's lane is its place in the subgroup, so that shuffles see lanes.
  laneValue = profile.subgroup == kernel::kQuantum
                  ? subgroupLaneValue
                  : component(*this, builtin("local_id", "LocalInvocationId", vector), 0);
  // A wave of 32 is a subgroup there.
  waveValue = waves == 1 ? i32(0)
              : profile.subgroup == kernel::kQuantum
                  ? builtin("subgroup_id", "SubgroupId", i32Type())
                  : component(*this, builtin("local_id", "LocalInvocationId", vector), 1);
  zeroValue = fromBits(shiftRight(laneValue, i32(5))); // lanes are below 32
}

static Type wordsType(Type element, unsigned width, int64_t pieces) {
  Type array = spirv::RuntimeArrayType::get(element, width);
  Type block = spirv::StructType::get(array, spirv::StructType::OffsetInfo(0));
  if (pieces > 1)
    block = spirv::ArrayType::get(block, pieces);
  return spirv::PointerType::get(block, spirv::StorageClass::StorageBuffer);
}

Value Machine::parameter(int64_t number) {
  Type block = spirv::StructType::get(i32Type(), spirv::StructType::OffsetInfo(0));
  auto push = variable("push", spirv::PointerType::get(block, spirv::StorageClass::PushConstant), std::nullopt);
  Value zero = create<spirv::ConstantOp>(i32Type(), builder.getI32IntegerAttr(0));
  Value base = create<spirv::LoadOp>(
      create<spirv::AccessChainOp>(Value(create<spirv::AddressOfOp>(push)), ValueRange{zero}).getResult());
  auto parameters = variable("parameters", wordsType(i32Type(), 4, 1), 0);
  Value at = add(base, i32(number));
  return create<spirv::LoadOp>(
      create<spirv::AccessChainOp>(Value(create<spirv::AddressOfOp>(parameters)), ValueRange{zero, at}).getResult());
}

Value Machine::pointer(const Memory &memory, unsigned width, Address at) {
  if (memory.local) {
    auto type =
        spirv::PointerType::get(spirv::ArrayType::get(i32Type(), memory.localElements), spirv::StorageClass::Workgroup);
    auto op = variable(memory.name, type, std::nullopt);
    Value element = shiftRight(at.bytes, i32(2));
    return create<spirv::AccessChainOp>(Value(create<spirv::AddressOfOp>(op)), ValueRange{element});
  }
  Type element = builder.getIntegerType(8 * width);
  std::string name = memory.name + (width == 4 ? "" : width == 2 ? "_halves" : "_bytes");
  auto op = variable(name, wordsType(element, width, memory.pieces), memory.binding, "", /*aliased=*/true);
  Value bytes = add(memory.byteOffset, at.bytes);
  Value index = width == 1 ? bytes : shiftRight(bytes, i32(width == 4 ? 2 : 1));
  SmallVector<Value> indices;
  if (memory.pieces > 1)
    indices.push_back(at.piece ? at.piece : i32(0));
  indices.push_back(create<spirv::ConstantOp>(i32Type(), builder.getI32IntegerAttr(0)));
  indices.push_back(index);
  return create<spirv::AccessChainOp>(Value(create<spirv::AddressOfOp>(op)), indices);
}

Value Machine::loadWord(const Memory &memory, Address at) { return create<spirv::LoadOp>(pointer(memory, 4, at)); }
void Machine::storeWord(Value value, const Memory &memory, Address at) {
  create<spirv::StoreOp>(pointer(memory, 4, at), value);
}

/// The word that holds byte `at`, moved so that the byte is its lowest.
static Value wordFrom(Machine &m, const Memory &memory, Address at) {
  // The offset that is added to every address is a multiple of 4.
  Value word = m.loadWord(memory, {at.piece, m.bitAnd(at.bytes, m.i32(-4))});
  return m.shiftRight(word, m.shiftLeft(m.bitAnd(at.bytes, m.i32(3)), m.i32(3)));
}

Value Machine::loadByte(const Memory &memory, Address at) {
  if (memory.local)
    return loadWord(memory, at);
  return signExtend(wordFrom(*this, memory, at), 8);
}
void Machine::storeByte(Value value, const Memory &memory, Address at) {
  if (memory.local)
    return storeWord(value, memory, at);
  create<spirv::StoreOp>(pointer(memory, 1, at), create<spirv::SConvertOp>(builder.getI8Type(), value));
}
Value Machine::loadHalf(const Memory &memory, Address at) {
  if (memory.local)
    return loadWord(memory, at);
  if (!profile.storage16)
    return bitAnd(wordFrom(*this, memory, at), i32(0xFFFF));
  Value half = create<spirv::LoadOp>(pointer(memory, 2, at));
  return bitAnd(create<spirv::UConvertOp>(i32Type(), half), i32(0xFFFF));
}
void Machine::storeHalf(Value value, const Memory &memory, Address at) {
  if (memory.local)
    return storeWord(value, memory, at);
  if (profile.storage16) {
    create<spirv::StoreOp>(pointer(memory, 2, at), create<spirv::SConvertOp>(builder.getI16Type(), value));
    return;
  }
  storeByte(value, memory, at);
  storeByte(shiftRight(value, i32(8)), memory, {at.piece, add(at.bytes, i32(1))});
}

} // namespace freeport::vulkan
