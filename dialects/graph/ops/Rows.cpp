// Ops that move or normalise rows: embed, select_rows, columns, rms_norm, glu, linear.
#include "dialects/graph/ops/Heads.h"

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
// rms_norm, glu
//===----------------------------------------------------------------------===//

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
  if (isPartOfAttention(*this))
    return success();
  View in = context.view(getInput());
  int64_t heads = getHeads(), size = in.width / heads;
  Outputs outputs = context.allocateOutputs(getResult(), in.rows, heads > 1 ? size : 32);
  SmallVector<Type> types = {context.f32Buffer(), context.f32Buffer()};
  types.append(outputs.types);
  SmallVector<Value> buffers = {in.buffer, context.weights(getWeightAttr())};
  buffers.append(outputs.buffers);
  auto function = context.kernel(
      Twine("rms_norm_") + Twine(heads) + "x" + Twine(size) + "_pitch_" + Twine(in.pitch) + "_from_" +
          Twine(in.offset) + "_epsilon_" + Twine::utohexstr(getEpsilon().bitcastToAPInt().getZExtValue()) +
          outputs.name,
      types, 0, [&](Emit &e, ValueRange arguments) {
        Value token = e.programId(kernel::Dimension::x), head = e.programId(kernel::Dimension::y);
        Value row = e.add(e.mul(token, e.index(in.pitch)), e.index(in.offset)), column = e.mul(head, e.index(size));
        auto element = [&](Value group) {
          Value base = e.add(e.add(row, column), e.mul(group, e.index(32)));
          return e.flush(e.loadLanes(arguments[0], base, e.mask(group, size)));
        };
        emitRmsNorm(e, size, getEpsilon(), arguments[1], element, [&](Value group, Value lanes) {
          outputs.store(e, arguments.drop_front(2), lanes, token, group, heads > 1 ? head : Value(), size);
        });
      });
  context.dispatch(function, {in.rows, context.constant(heads)}, buffers, {}, Twine("rms_norm ") + Twine(in.width));
  return success();
}

static std::string shapeOf(LinearOp linear) {
  ParameterOp weights = lookupParameter(linear, linear.getWeightAttr());
  return (weights.getFormat() + " " + Twine(weights.getShape()[0]) + "x" + Twine(weights.getShape()[1])).str();
}

/// `op`, with its result, or what a gate makes of it, in every form that consumers read.
static LoweringContext::Linear linearOf(LoweringContext &context, LinearOp op, Value result, bool gated) {
  ParameterOp parameter = lookupParameter(op, op.getWeightAttr());
  LoweringContext::Linear linear;
  linear.weights = parameter;
  linear.activations = context.activations(op.getInput(), context.weightsType(parameter).isQuantized());
  linear.bias = op.getBiasAttr();
  if (op.getResidual())
    linear.residual = context.view(op.getResidual());
  linear.rows = context.rowsOf(op.getInput());
  linear.out = context.allocateOutputs(result, linear.rows);
  linear.gated = gated;
  return linear;
}

/// The linear map whose result is nothing but the gate and, behind it, the up of `glu`; null where there is none.
static LinearOp gatedLinear(GluOp glu) {
  auto half = [&](Value operand, int64_t offset) -> Value {
    auto columns = operand.getDefiningOp<ColumnsOp>();
    return columns && columns->hasOneUse() && int64_t(columns.getOffset()) == offset ? columns.getInput() : Value();
  };
  int64_t inner = width(glu.getGate());
  Value both = half(glu.getGate(), 0);
  if (!both || inner % 32 || width(both) != 2 * inner || half(glu.getUp(), inner) != both ||
      !llvm::hasNItems(both.getUses(), 2))
    return {};
  auto linear = both.getDefiningOp<LinearOp>();
  return linear && !linear.getBias() && !linear.getResidual() ? linear : LinearOp();
}

LogicalResult GluOp::verify() { // glu_c1
  if (failed(expectWidth(*this, "up", width(getGate()), width(getUp()))))
    return failure();
  return expectWidth(*this, "a result", width(getGate()), width(getResult()));
}

LogicalResult GluOp::lower(LoweringContext &context) {
  if (LinearOp linear = gatedLinear(*this)) {
    context.emitLinear(linearOf(context, linear, getResult(), /*gated=*/true), "linear_glu " + shapeOf(linear));
    return success();
  }
  View gate = context.view(getGate()), up = context.view(getUp());
  Outputs outputs = context.allocateOutputs(getResult(), gate.rows);
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
        outputs.store(e, arguments.drop_front(2), e.glu(load(arguments[0], gate), load(arguments[1], up)), token,
                      group);
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
  // A gated one is the glu's.
  for (Operation *columns : getResult().getUsers())
    for (Operation *user : columns->getUsers())
      if (auto glu = dyn_cast<GluOp>(user); glu && gatedLinear(glu) == *this)
        return success();
  context.emitLinear(linearOf(context, *this, getResult(), /*gated=*/false), "linear " + shapeOf(*this));
  return success();
}

} // namespace freeport::graph
