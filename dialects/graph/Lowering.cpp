// Shared pieces of every lowering: memory of values, kernels by name, dispatches, and the linear map.
#include "dialects/graph/Lowering.h"

using namespace mlir;
using freeport::kernel::Emit;

namespace freeport::graph {

LoweringContext::LoweringContext(ModuleOp module, launch::VariantOp variant, Schedule schedule)
    : schedule(schedule), module(module), kernels(OpBuilder::atBlockEnd(module.getBody())),
      launches(OpBuilder::atBlockEnd(&variant.getBody().front())), variant(variant) {
  // Banks of one record lie side by side: the distance between entries is the whole record, padded to a page.
  for (auto parameter : module.getOps<ParameterOp>()) {
    ArrayRef<int64_t> shape = parameter.getShape();
    if (shape.size() != 3 || !parameter.getRecord())
      continue;
    recordStrides[*parameter.getRecord()] +=
        kernel::matrixBytes(*kernel::symbolizeBlockFormat(parameter.getFormat()), shape[1], shape[2]);
  }
  for (auto &entry : recordStrides)
    entry.second = kernel::recordStride(entry.second);
}

static int64_t padded(int64_t width) { return (width + 31) / 32 * 32; }

View LoweringContext::allocateRows(Value value, AffineExpr rows) {
  View view{{}, 0, padded(width(value)), width(value), rows};
  bool returned = llvm::any_of(value.getUsers(), [](Operation *user) { return isa<func::ReturnOp>(user); });
  if (returned) {
    view.pitch = view.width;
    auto bytes = launch::SizeAttr::get(context(), rows * (view.pitch * 4));
    view.buffer = launches.create<launch::OutputOp>(module.getLoc(), launch::BufferType::get(context()),
                                                    launches.getStringAttr("logits"), bytes);
  } else {
    view.buffer = allocate(rows * (view.pitch * 4));
  }
  bind(value, view);
  return view;
}

AffineExpr LoweringContext::rowsOf(Value value) {
  for (Operation *op = value.getDefiningOp(); op;
       op = op->getNumOperands() ? op->getOperand(0).getDefiningOp() : nullptr)
    if (isa<SelectRowsOp>(op))
      return symbol(launch::Symbol::logitRows);
  return tokens();
}

Value LoweringContext::allocate(AffineExpr bytes) {
  return launches.create<launch::AllocateOp>(module.getLoc(), launch::BufferType::get(context()),
                                             launch::SizeAttr::get(context(), bytes));
}

Value LoweringContext::weights(FlatSymbolRefAttr parameter) {
  Value &value = memory[("weights " + parameter.getValue()).str()];
  if (!value)
    value = launches.create<launch::WeightsOp>(module.getLoc(), launch::BufferType::get(context()), parameter);
  return value;
}

Value LoweringContext::state(StringRef name, int64_t pageBytes) {
  std::string symbol = ("state." + name).str();
  if (!module.lookupSymbol(symbol))
    OpBuilder::atBlockBegin(module.getBody()).create<launch::StateOp>(module.getLoc(), symbol, pageBytes);
  Value &value = memory[symbol];
  if (!value)
    value = launches.create<launch::StateMemoryOp>(module.getLoc(), launch::BufferType::get(context()), symbol);
  return value;
}

Value LoweringContext::input(StringRef name) {
  Value &value = memory[("input " + name).str()];
  if (!value) {
    AffineExpr count = name == "logit_rows"   ? symbol(launch::Symbol::logitRows)
                       : name == "page_table" ? symbol(launch::Symbol::sequences) * tablePages()
                                              : tokens();
    value = launches.create<launch::InputOp>(module.getLoc(), launch::BufferType::get(context()),
                                             launches.getStringAttr(name), launch::SizeAttr::get(context(), count * 4));
  }
  return value;
}

kernel::WeightsType LoweringContext::weightsType(ParameterOp parameter) {
  ArrayRef<int64_t> shape = parameter.getShape();
  kernel::BlockFormat format = *kernel::symbolizeBlockFormat(parameter.getFormat());
  if (shape.size() == 2)
    return kernel::WeightsType::get(context(), format, 0, shape[0], shape[1], 0);
  auto entry = kernel::WeightsType::get(context(), format, 0, shape[1], shape[2], 0);
  int64_t stride = parameter.getRecord() ? recordStrides.lookup(*parameter.getRecord()) : entry.getEntryBytes();
  return kernel::WeightsType::get(context(), format, shape[0], shape[1], shape[2], stride);
}

kernel::ActivationsType LoweringContext::activationsType(int64_t width, bool quantized) {
  Type element = quantized ? Type(IntegerType::get(context(), 8)) : Type(Float32Type::get(context()));
  return kernel::ActivationsType::get(context(), element, width);
}

static bool isQuantized(ParameterOp parameter) {
  return kernel::isQuantized(*kernel::symbolizeBlockFormat(parameter.getFormat()));
}

Forms LoweringContext::formsOf(Value value) {
  Forms forms;
  for (OpOperand &use : value.getUses()) {
    FlatSymbolRefAttr weight;
    if (auto linear = dyn_cast<LinearOp>(use.getOwner()); linear && use.getOperandNumber() == 0)
      weight = linear.getWeightAttr();
    if (auto experts = dyn_cast<ExpertsOp>(use.getOwner()); experts && use.getOperandNumber() == 0)
      weight = experts.getGateAttr();
    if (!weight)
      forms.plain = true;
    else
      (isQuantized(lookupParameter(use.getOwner(), weight)) ? forms.quantized : forms.flushed) = true;
  }
  return forms;
}

kernel::FuncOp LoweringContext::kernel(const Twine &name, ArrayRef<Type> memoryTypes, unsigned scalars,
                                       KernelBody body) {
  std::string symbol = name.str();
  if (auto known = module.lookupSymbol<kernel::FuncOp>(symbol))
    return known;
  SmallVector<Type> types(memoryTypes);
  types.append(scalars, kernels.getIndexType());
  auto function = kernels.create<kernel::FuncOp>(module.getLoc(), symbol, kernels.getFunctionType(types, {}));
  OpBuilder builder = OpBuilder::atBlockEnd(&function.getBody().front());
  Emit emit(builder, module.getLoc(), schedule.nativeExp);
  body(emit, function.getBody().getArguments());
  builder.create<kernel::ReturnOp>(module.getLoc());
  return function;
}

void LoweringContext::dispatch(kernel::FuncOp function, ArrayRef<AffineExpr> grid, ValueRange buffers,
                               ArrayRef<AffineExpr> scalars, const Twine &implements) {
  auto [known, fresh] = writes.try_emplace(function);
  for (unsigned number = 0; fresh && number < buffers.size(); ++number)
    if (function.writesArgument(number))
      known->second.push_back(number);
  auto sizes = [&](ArrayRef<AffineExpr> expressions) {
    SmallVector<Attribute> attributes;
    for (AffineExpr expression : expressions)
      attributes.push_back(launch::SizeAttr::get(context(), expression));
    return launches.getArrayAttr(attributes);
  };
  launches.create<launch::DispatchOp>(module.getLoc(), FlatSymbolRefAttr::get(function), sizes(grid), buffers,
                                      launches.getDenseI64ArrayAttr(writes[function]), sizes(scalars),
                                      launches.getStringAttr(implements));
}

Value LoweringContext::emitActivations(View view, int64_t parts, int64_t stride, int64_t width, bool quantized) {
  kernel::ActivationsType type = activationsType(width, quantized);
  Value out = allocate(view.rows * (parts * type.getTokenBytes()));
  auto function =
      kernel(Twine("activations_") + (quantized ? "i8_" : "f32_") + Twine(width) + "_of_" + Twine(parts) + "x" +
                 Twine(stride) + "_pitch_" + Twine(view.pitch) + "_from_" + Twine(view.offset),
             {f32Buffer(), type}, 0, [&](Emit &e, ValueRange arguments) {
               Value group = e.programId(kernel::Dimension::x), token = e.programId(kernel::Dimension::y);
               Value part = e.programId(kernel::Dimension::z);
               Value base = e.add(e.mul(token, e.index(view.pitch)), e.mul(part, e.index(stride)));
               base = e.add(e.add(base, e.mul(group, e.index(32))), e.index(view.offset));
               Value record = e.add(e.mul(token, e.index(parts)), part);
               e.storeGroup(e.loadLanes(arguments[0], base, e.mask(group, width)), arguments[1], record, group);
             });
  dispatch(function, {constant(type.getGroups()), view.rows, constant(parts)}, {view.buffer, out}, {},
           Twine("activations ") + (quantized ? "i8 " : "f32 ") + Twine(width));
  return out;
}

Value LoweringContext::activations(Value value, bool quantized) {
  Value &slot = activationsSlot(value, quantized);
  if (!slot) {
    Value made = emitActivations(view(value), 1, 0, width(value), quantized);
    return activationsSlot(value, quantized) = made;
  }
  return slot;
}

Outputs LoweringContext::allocateOutputs(Value value, AffineExpr rows, int64_t part) {
  Forms wanted = part % 32 == 0 ? formsOf(value) : Forms{.plain = true};
  Outputs outputs = wanted.plain ? plainOutputs(allocateRows(value, rows)) : Outputs();
  for (bool quantized : {true, false}) {
    if (!(quantized ? wanted.quantized : wanted.flushed))
      continue;
    kernel::ActivationsType type = activationsType(width(value), quantized);
    Value buffer = allocate(rows * type.getTokenBytes());
    activationsSlot(value, quantized) = buffer;
    outputs.types.push_back(type);
    outputs.buffers.push_back(buffer);
    outputs.name += quantized ? "_i8" : "_flushed";
  }
  return outputs;
}

void Outputs::store(Emit &e, ValueRange arguments, Value lanes, Value row, Value group, Value part,
                    int64_t width) const {
  for (Value argument : arguments) {
    if (auto type = dyn_cast<kernel::ActivationsType>(argument.getType())) {
      Value first = part ? e.add(e.mul(part, e.index(width / 32)), group) : group;
      Value mask = part ? Value() : e.mask(group, type.getWidth());
      e.storeGroup(mask ? e.select(mask, lanes, e.f32(0)) : lanes, argument, row, first);
      continue;
    }
    Value base = e.add(e.mul(row, e.index(plain.pitch)), e.mul(group, e.index(32)));
    if (part)
      base = e.add(base, e.mul(part, e.index(width)));
    e.storeLanes(lanes, argument, base, e.mask(group, part ? width : plain.pitch));
  }
}

void LoweringContext::emitLinear(const Linear &linear, StringRef implements) {
  kernel::WeightsType type = weightsType(linear.weights);
  kernel::ActivationsType inputType = activationsType(type.getInputs(), type.isQuantized());
  int64_t tile = schedule.tokensPerTile;
  const Outputs &out = linear.out;
  SmallVector<Type> types = {type, inputType};
  SmallVector<Value> buffers = {weights(FlatSymbolRefAttr::get(linear.weights)), linear.activations};
  std::string name;
  llvm::raw_string_ostream stream(name);
  stream << (linear.gated ? "linear_glu_" : "linear_") << linear.weights.getFormat() << "_";
  if (type.isBank())
    stream << type.getEntries() << "x";
  stream << type.getRows() << "x" << type.getInputs() << "_tile_" << tile << out.name;
  if (type.isBank())
    stream << "_stride_" << type.getEntryStride() << "_" << linear.partStride;
  unsigned biasAt = types.size(), residualAt = biasAt;
  if (linear.bias) {
    ++residualAt;
    types.push_back(f32Buffer());
    buffers.push_back(weights(linear.bias));
    stream << "_bias";
  }
  if (linear.residual) {
    types.push_back(f32Buffer());
    buffers.push_back(linear.residual->buffer);
    stream << "_residual_" << linear.residual->offset << "_" << linear.residual->pitch;
  }
  unsigned outAt = types.size();
  types.append(out.types);
  buffers.append(out.buffers);
  int64_t blocks = type.getRowBlocks() / (linear.gated ? 2 : 1);
  auto function = kernel(name, types, 1, [&](Emit &e, ValueRange arguments) {
    Value block = e.programId(kernel::Dimension::y), tokenTile = e.programId(kernel::Dimension::x);
    Value part = type.isBank() ? e.programId(kernel::Dimension::z) : Value();
    Value count = arguments.back();
    ValueRange outputs = arguments.slice(outAt, out.types.size());
    SmallVector<Value> tokenRows, records;
    for (int64_t t = 0; t < tile; ++t) {
      Value row = e.add(e.mul(tokenTile, e.index(tile)), e.index(t));
      tokenRows.push_back(tile == 1 ? row : e.min(row, e.sub(count, e.index(1))));
      records.push_back(part ? e.add(e.mul(tokenRows.back(), e.index(linear.parts)), part) : tokenRows.back());
    }
    auto dots = [&](Value block) { return e.spanDots(arguments[0], part, block, arguments[1], records); };
    if (linear.gated) {
      Value gates = dots(block), ups = dots(e.add(block, e.index(blocks)));
      for (int64_t t = 0; t < tile; ++t)
        out.store(e, outputs, e.glu(e.lanesOf(gates, 0, t), e.lanesOf(ups, 0, t)), tokenRows[t], block);
      return;
    }
    Value sums = dots(block), column = e.mul(block, e.index(32)), mask = e.mask(block, type.getRows());
    Value bias = linear.bias ? e.loadLanes(arguments[biasAt], column, mask) : Value();
    for (int64_t t = 0; t < tile; ++t) {
      Value value = e.lanesOf(sums, 0, t);
      if (bias)
        value = e.add(value, bias);
      if (linear.residual) {
        Value base = e.add(e.mul(tokenRows[t], e.index(linear.residual->pitch)), column);
        base = e.add(base, e.index(linear.residual->offset));
        value = e.add(e.loadLanes(arguments[residualAt], base, mask), value);
      }
      out.store(e, outputs, value, tokenRows[t], block, part, linear.partStride);
    }
  });
  // Tokens first: programs that follow each other work on the same weights, which are still in a cache.
  SmallVector<AffineExpr> grid = {linear.rows.ceilDiv(tile), constant(blocks)};
  if (type.isBank())
    grid.push_back(constant(linear.parts));
  dispatch(function, grid, buffers, {linear.rows}, implements);
}

} // namespace freeport::graph
