// Ops that move or normalise rows: embed, select_rows, columns, rms_norm, glu, linear.
#include "dialects/graph/Lowering.h"

using namespace mlir;
using freeport::kernel::Emit;

namespace freeport::graph {

/// The parameter of that name, or a diagnostic.
static FailureOr<ParameterOp> parameterOf(Operation *op, FlatSymbolRefAttr symbol) {
  ParameterOp parameter = lookupParameter(op, symbol);
  if (!parameter)
    return op->emitOpError("expects the name of a graph.parameter, got ") << symbol;
  return parameter;
}

static LogicalResult expectShape(Operation *op, FlatSymbolRefAttr symbol, ArrayRef<int64_t> shape) {
  FailureOr<ParameterOp> parameter = parameterOf(op, symbol);
  if (failed(parameter))
    return failure();
  if (parameter->getShape() != shape)
    return op->emitOpError("expects ") << symbol << " of shape " << shape << ", got " << parameter->getShape();
  return success();
}

static LogicalResult expectWidth(Operation *op, StringRef what, int64_t expected, int64_t got) {
  if (expected != got)
    return op->emitOpError("expects ") << what << " of width " << expected << ", got " << got;
  return success();
}

//===----------------------------------------------------------------------===//
// embed, select_rows, columns
//===----------------------------------------------------------------------===//

LogicalResult EmbedOp::verify() {
  FailureOr<ParameterOp> table = parameterOf(*this, getTableAttr());
  if (failed(table))
    return failure();
  if (table->getShape().size() != 2 || table->getShape()[1] != width(getResult())) // embed_c1
    return emitOpError("expects a table with ") << width(getResult()) << " inputs, got shape " << table->getShape();
  return success();
}

LogicalResult EmbedOp::lower(LoweringContext &context) {
  ParameterOp table = lookupParameter(*this, getTableAttr());
  kernel::WeightsType type = context.weightsType(table);
  View out = context.allocateRows(getResult(), context.tokens());
  auto function = context.kernel(
      Twine("embed_") + table.getFormat() + "_" + Twine(type.getRows()) + "x" + Twine(type.getInputs()),
      {type, context.i32Buffer(), context.f32Buffer()}, 0, [&](Emit &e, ValueRange arguments) {
        Value group = e.programId(kernel::Dimension::x), token = e.programId(kernel::Dimension::y);
        Value id = e.toIndex(e.load(arguments[1], token));
        Value lanes = e.builder.create<kernel::UnpackOp>(e.location, VectorType::get({32}, e.builder.getF32Type()),
                                                         arguments[0], id, group);
        e.storeLanes(lanes, arguments[2], e.add(e.mul(token, e.index(out.pitch)), e.mul(group, e.index(32))),
                     e.mask(group, out.pitch));
      });
  context.dispatch(function, {context.constant(type.getGroups()), context.tokens()},
                   {context.weights(getTableAttr()), context.input("token_ids"), out.buffer}, {},
                   Twine("embed ") + table.getFormat());
  return success();
}

LogicalResult SelectRowsOp::verify() { // select_rows_c1
  return expectWidth(*this, "a result", width(getInput()), width(getResult()));
}

LogicalResult SelectRowsOp::lower(LoweringContext &context) {
  View in = context.view(getInput());
  AffineExpr rows = launch::symbolExpression(context.context(), launch::Symbol::logitRows);
  View out = context.allocateRows(getResult(), rows);
  auto function = context.kernel(
      Twine("select_rows_") + Twine(in.width) + "_pitch_" + Twine(in.pitch) + "_from_" + Twine(in.offset),
      {context.f32Buffer(), context.i32Buffer(), context.f32Buffer()}, 0, [&](Emit &e, ValueRange arguments) {
        Value group = e.programId(kernel::Dimension::x), row = e.programId(kernel::Dimension::y);
        Value source = e.toIndex(e.load(arguments[1], row)), column = e.mul(group, e.index(32));
        Value base = e.add(e.add(e.mul(source, e.index(in.pitch)), column), e.index(in.offset));
        Value lanes = e.loadLanes(arguments[0], base, e.mask(group, in.width));
        e.storeLanes(lanes, arguments[2], e.add(e.mul(row, e.index(out.pitch)), column), e.mask(group, out.pitch));
      });
  context.dispatch(function, {context.constant((in.width + 31) / 32), rows},
                   {in.buffer, context.input("logit_rows"), out.buffer}, {}, "select_rows");
  return success();
}

LogicalResult ColumnsOp::verify() {
  int64_t last = int64_t(getOffset()) + width(getResult());
  if (int64_t(getOffset()) < 0 || last > width(getInput())) // columns_c1
    return emitOpError("expects columns inside 0 to ")
           << width(getInput()) << ", got " << getOffset() << " to " << last;
  return success();
}

LogicalResult ColumnsOp::lower(LoweringContext &context) {
  View view = context.view(getInput());
  view.offset += getOffset();
  view.width = width(getResult());
  context.bind(getResult(), view);
  return success();
}

//===----------------------------------------------------------------------===//
// rms_norm, glu: they write their result in every form that a consumer reads
//===----------------------------------------------------------------------===//

/// Where a result goes: f32 rows and activations, as its consumers need.
struct Outputs {
  View plain;
  SmallVector<Type> types;
  SmallVector<Value> buffers;
  std::string name;
};

static Outputs plainOutputs(LoweringContext &context, Value result, AffineExpr rows) {
  View plain = context.allocateRows(result, rows);
  return {plain, {context.f32Buffer()}, {plain.buffer}, "_f32"};
}

static Outputs allocateOutputs(LoweringContext &context, Value result, AffineExpr rows) {
  Forms forms = context.formsOf(result);
  Outputs outputs = forms.plain ? plainOutputs(context, result, rows) : Outputs();
  for (bool quantized : {true, false}) {
    if (!(quantized ? forms.quantized : forms.flushed))
      continue;
    kernel::ActivationsType type = context.activationsType(width(result), quantized);
    Value buffer = context.allocate(rows * type.getTokenBytes());
    context.activationsSlot(result, quantized) = buffer;
    outputs.types.push_back(type);
    outputs.buffers.push_back(buffer);
    outputs.name += quantized ? "_i8" : "_flushed";
  }
  return outputs;
}

/// Stores one group of 32 elements of row `token` to each of the memory arguments.
static void storeOutputs(Emit &e, const Outputs &outputs, ValueRange arguments, Value lanes, Value token, Value group) {
  for (Value argument : arguments) {
    if (isa<kernel::ActivationsType>(argument.getType()))
      e.storeGroup(lanes, argument, token, group);
    else
      e.storeLanes(lanes, argument, e.add(e.mul(token, e.index(outputs.plain.pitch)), e.mul(group, e.index(32))),
                   e.mask(group, outputs.plain.pitch));
  }
}

LogicalResult RmsNormOp::verify() {
  int64_t heads = getHeads();
  if (heads < 1 || width(getInput()) % heads) // rms_norm_c3
    return emitOpError("expects a width that is a multiple of the heads, got ")
           << width(getInput()) << " and " << heads;
  if (failed(expectShape(*this, getWeightAttr(), {width(getInput()) / heads}))) // rms_norm_c1
    return failure();
  return expectWidth(*this, "a result", width(getInput()), width(getResult())); // rms_norm_c2
}

LogicalResult RmsNormOp::lower(LoweringContext &context) {
  View in = context.view(getInput());
  int64_t heads = getHeads(), size = in.width / heads;
  // A head is no whole number of groups: its consumers take plain rows.
  Outputs outputs =
      heads > 1 ? plainOutputs(context, getResult(), in.rows) : allocateOutputs(context, getResult(), in.rows);
  SmallVector<Type> types = {context.f32Buffer(), context.f32Buffer()};
  types.append(outputs.types);
  SmallVector<Value> buffers = {in.buffer, context.weights(getWeightAttr())};
  buffers.append(outputs.buffers);
  uint32_t epsilonBits = getEpsilon().bitcastToAPInt().getZExtValue();
  auto function = context.kernel(
      Twine("rms_norm_") + Twine(heads) + "x" + Twine(size) + "_pitch_" + Twine(in.pitch) + "_from_" +
          Twine(in.offset) + "_epsilon_" + Twine::utohexstr(epsilonBits) + outputs.name,
      types, 0, [&](Emit &e, ValueRange arguments) {
        Value token = e.programId(kernel::Dimension::x), head = e.programId(kernel::Dimension::y);
        Value row = e.add(e.mul(token, e.index(in.pitch)), e.index(in.offset)), column = e.mul(head, e.index(size));
        Value groups = e.index((size + 31) / 32);
        auto element = [&](Value group) {
          Value base = e.add(e.add(row, column), e.mul(group, e.index(32)));
          return e.flush(e.loadLanes(arguments[0], base, e.mask(group, size)));
        };
        Value squares = e.loop(e.index(0), groups, {e.zeroLanes()}, [&](Value group, ValueRange sums) {
          Value x = element(group);
          return SmallVector<Value>{e.add(sums[0], e.mul(x, x))};
        })[0];
        Value mean = e.div(e.reduce(kernel::ReduceKind::add, squares), e.f32(static_cast<float>(size)));
        Value inverse = e.div(e.f32(1), e.sqrt(e.add(mean, e.f32Bits(epsilonBits))));
        e.loop(e.index(0), groups, [&](Value group) {
          Value weight = e.loadLanes(arguments[1], e.mul(group, e.index(32)), e.mask(group, size));
          Value lanes = e.mul(e.mul(element(group), inverse), weight);
          if (heads == 1)
            return storeOutputs(e, outputs, arguments.drop_front(2), lanes, token, group);
          Value base = e.add(e.add(e.mul(token, e.index(outputs.plain.pitch)), column), e.mul(group, e.index(32)));
          e.storeLanes(lanes, arguments[2], base, e.mask(group, size));
        });
      });
  context.dispatch(function, {in.rows, context.constant(heads)}, buffers, {}, Twine("rms_norm ") + Twine(in.width));
  return success();
}

LogicalResult GluOp::verify() { // glu_c1
  if (failed(expectWidth(*this, "up", width(getGate()), width(getUp()))))
    return failure();
  return expectWidth(*this, "a result", width(getGate()), width(getResult()));
}

LogicalResult GluOp::lower(LoweringContext &context) {
  View gate = context.view(getGate()), up = context.view(getUp());
  Outputs outputs = allocateOutputs(context, getResult(), gate.rows);
  SmallVector<Type> types = {context.f32Buffer(), context.f32Buffer()};
  types.append(outputs.types);
  SmallVector<Value> buffers = {gate.buffer, up.buffer};
  buffers.append(outputs.buffers);
  auto function = context.kernel(
      Twine("glu_") + Twine(gate.width) + "_gate_" + Twine(gate.offset) + "_" + Twine(gate.pitch) + "_up_" +
          Twine(up.offset) + "_" + Twine(up.pitch) + outputs.name,
      types, 0, [&](Emit &e, ValueRange arguments) {
        Value group = e.programId(kernel::Dimension::x), token = e.programId(kernel::Dimension::y);
        Value column = e.mul(group, e.index(32)), mask = e.mask(group, gate.width);
        auto load = [&](Value buffer, const View &view) {
          return e.loadLanes(buffer, e.add(e.add(e.mul(token, e.index(view.pitch)), column), e.index(view.offset)),
                             mask);
        };
        Value lanes = e.mul(e.flush(e.silu(load(arguments[0], gate))), e.flush(load(arguments[1], up)));
        storeOutputs(e, outputs, arguments.drop_front(2), lanes, token, group);
      });
  context.dispatch(function, {context.constant((gate.width + 31) / 32), gate.rows}, buffers, {},
                   Twine("glu ") + Twine(gate.width));
  return success();
}

//===----------------------------------------------------------------------===//
// linear
//===----------------------------------------------------------------------===//

LogicalResult LinearOp::verify() {
  if (failed(expectShape(*this, getWeightAttr(), {width(getResult()), width(getInput())}))) // linear_c1
    return failure();
  if (getBias() && failed(expectShape(*this, getBiasAttr(), {width(getResult())}))) // linear_c2
    return failure();
  if (getResidual() && failed(expectWidth(*this, "a residual", width(getResult()), width(getResidual())))) // linear_c3
    return failure();
  return success();
}

LogicalResult LinearOp::lower(LoweringContext &context) {
  ParameterOp parameter = lookupParameter(*this, getWeightAttr());
  LoweringContext::Linear linear;
  linear.weights = parameter;
  linear.activations = context.activations(getInput(), context.weightsType(parameter).isQuantized());
  linear.bias = getBiasAttr();
  if (getResidual())
    linear.residual = context.view(getResidual());
  linear.out = context.allocateRows(getResult(), context.rowsOf(getInput()));
  context.emitLinear(linear, (Twine("linear ") + parameter.getFormat() + " " + Twine(parameter.getShape()[0]) + "x" +
                              Twine(parameter.getShape()[1]))
                                 .str());
  return success();
}

} // namespace freeport::graph
