// The first problem wins: families build on with whatever they have, and `finish` reports it.
#include "compiler/frontend/GraphBuilder.h"
#include "compiler/package/BlockPacker.h"

#include "mlir/IR/Verifier.h"
#include "llvm/ADT/StringExtras.h"

#include <numeric>

using namespace mlir;

namespace freeport::frontend {

GraphBuilder::GraphBuilder(MLIRContext &context, checkpoint::Checkpoint &checkpoint, const ImportOptions &options)
    : builder(&context), location(builder.getUnknownLoc()), checkpoint(checkpoint), options(options),
      module(ModuleOp::create(location)), parameters(OpBuilder::atBlockEnd(module->getBody())) {
  quantized =
      options.weights == "keep"
          ? llvm::any_of(checkpoint.tensors(), [](auto &tensor) { return checkpoint::isQuantized(tensor.dtype); })
          : options.weights == "q4" || options.weights == "q8";
}

void GraphBuilder::requireKnownQuantization() {
  checkpoint::Config quantization = config().object("quantization_config");
  quantization.require("quant_method", "fp8", "the only quantisation that is imported");
  quantization.require("weight_block_size", nlohmann::json::array({128, 128}), "scales per 128x128 block");
  config().adopt(quantization);
}

void GraphBuilder::setError(const Twine &message) {
  if (!problem)
    problem = (checkpoint.path() + ": " + message).str();
}

static std::string shapeText(ArrayRef<int64_t> shape) {
  return "[" + llvm::join(llvm::map_range(shape, [](int64_t size) { return std::to_string(size); }), ", ") + "]";
}

const checkpoint::TensorInfo *GraphBuilder::require(StringRef tensor, ArrayRef<int64_t> shape) {
  const checkpoint::TensorInfo *found = checkpoint.find(tensor);
  if (!found) {
    setError("expects tensor '" + tensor + "' of shape " + shapeText(shape) + ", found none");
    return nullptr;
  }
  if (ArrayRef<int64_t>(found->shape) != shape)
    setError("expects tensor '" + tensor + "' of shape " + shapeText(shape) + ", got " + shapeText(found->shape));
  using checkpoint::DataType;
  bool fp8 = found->dtype == DataType::F8_E4M3;
  if (!fp8 && found->dtype != DataType::F32 && found->dtype != DataType::F16 && found->dtype != DataType::BF16 &&
      !checkpoint::isQuantized(found->dtype))
    setError("expects tensor '" + tensor + "' of F32, F16, BF16 or F8_E4M3, got " + checkpoint::name(found->dtype));
  if (shape.size() == 1 && checkpoint::isQuantized(found->dtype))
    setError("expects tensor '" + tensor + "' of F32, F16 or BF16, got " + checkpoint::name(found->dtype));
  if (used.insert(tensor).second)
    parameterCount += std::accumulate(shape.begin(), shape.end(), uint64_t(1), std::multiplies<>());
  if (fp8 && shape.size() == 2) {
    std::string scale = (tensor + "_scale_inv").str();
    const checkpoint::TensorInfo *scales = checkpoint.find(scale);
    SmallVector<int64_t> tiles = {(shape[0] + 127) / 128, (shape[1] + 127) / 128};
    if (!scales || scales->dtype != DataType::F32 || ArrayRef<int64_t>(scales->shape) != ArrayRef<int64_t>(tiles))
      setError("expects F32 tensor '" + scale + "' of shape " + shapeText(tiles) + " beside its FP8 weight");
    used.insert(scale);
  }
  return found;
}

FlatSymbolRefAttr GraphBuilder::add(StringRef name, ArrayRef<int64_t> shape, StringRef format, StringRef record,
                                    ArrayRef<Attribute> entries) {
  parameters.create<graph::ParameterOp>(location, name, shape, builder.getStringAttr(format),
                                        record.empty() ? StringAttr() : builder.getStringAttr(record),
                                        builder.getArrayAttr(entries), DenseF32ArrayAttr());
  return FlatSymbolRefAttr::get(builder.getContext(), name);
}

graph::PieceAttr GraphBuilder::piece(const Source &source) {
  require(source.tensor, {source.rows, source.inputs});
  return graph::PieceAttr::get(builder.getContext(), source.tensor, source.firstRow,
                               source.pieceRows ? source.pieceRows : source.rows, source.transposed);
}

FlatSymbolRefAttr GraphBuilder::vector(StringRef tensor, int64_t size) {
  require(tensor, {size});
  auto whole = graph::PieceAttr::get(builder.getContext(), tensor, 0, size, false);
  return add(tensor, {size}, "f32", "", {builder.getArrayAttr({whole})});
}

FlatSymbolRefAttr GraphBuilder::biases(StringRef name, ArrayRef<Source> sources) {
  SmallVector<Attribute> pieces;
  int64_t size = 0;
  for (const Source &source : sources) {
    StringRef stem = source.tensor;
    stem.consume_back(".weight");
    std::string tensor = (stem + ".bias").str();
    require(tensor, {source.rows});
    pieces.push_back(graph::PieceAttr::get(builder.getContext(), tensor, 0, source.rows, false));
    size += source.rows;
  }
  return add(name, {size}, "f32", "", {builder.getArrayAttr(pieces)});
}

FlatSymbolRefAttr GraphBuilder::table(StringRef name, ArrayRef<float> values) {
  int64_t size = values.size();
  parameters.create<graph::ParameterOp>(location, name, ArrayRef<int64_t>{size}, builder.getStringAttr("f32"),
                                        StringAttr(), ArrayAttr(), builder.getDenseF32ArrayAttr(values));
  return FlatSymbolRefAttr::get(builder.getContext(), name);
}

StringRef GraphBuilder::formatOf(const Source &source) {
  if (options.weights != "keep")
    return options.weights;
  const checkpoint::TensorInfo *tensor = checkpoint.find(source.tensor);
  return kernel::stringifyBlockFormat(
      nativeFormat(tensor ? tensor->dtype : checkpoint::DataType::F32).value_or(kernel::BlockFormat::f32));
}

FlatSymbolRefAttr GraphBuilder::matrix(StringRef name, ArrayRef<Source> sources, StringRef format) {
  SmallVector<Attribute> pieces;
  int64_t rows = 0;
  for (const Source &source : sources) {
    pieces.push_back(piece(source));
    rows += source.rows;
  }
  return add(name, {rows, sources.front().inputs}, format.empty() ? formatOf(sources.front()) : format, "",
             {builder.getArrayAttr(pieces)});
}

FlatSymbolRefAttr GraphBuilder::bank(StringRef name, ArrayRef<Source> entries, StringRef format, StringRef record) {
  SmallVector<Attribute> attributes;
  for (const Source &source : entries) {
    attributes.push_back(builder.getArrayAttr({piece(source)}));
    if (format.empty() && formatOf(source) != formatOf(entries.front()))
      setError("expects '" + entries.front().tensor + "' and '" + source.tensor +
               "' in one type, as all of a layer's experts; --weights q4 or q8 gives them one");
  }
  const Source &first = entries.front();
  int64_t rows = first.pieceRows ? first.pieceRows : first.rows, inputs = first.inputs;
  if (first.transposed)
    std::swap(rows, inputs);
  return add(name, {int64_t(entries.size()), rows, inputs}, format.empty() ? formatOf(first) : format, record,
             attributes);
}

RankedTensorType GraphBuilder::rows(int64_t width) {
  return RankedTensorType::get({ShapedType::kDynamic, width}, builder.getF32Type());
}

void GraphBuilder::beginStep() {
  auto integers = RankedTensorType::get({ShapedType::kDynamic}, builder.getI32Type());
  builder.setInsertionPointToEnd(module->getBody());
  step = builder.create<func::FuncOp>(location, "step", builder.getFunctionType({integers, integers, integers}, {}));
  builder.setInsertionPointToStart(step.addEntryBlock());
  ids = step.getArgument(0);
  positions = step.getArgument(1);
  logitRows = step.getArgument(2);
  parameters.setInsertionPoint(step);
}

void GraphBuilder::endStep(Value logits) {
  builder.create<func::ReturnOp>(location, logits);
  step.setFunctionType(builder.getFunctionType(step.getArgumentTypes(), logits.getType()));
}

Value GraphBuilder::embed(FlatSymbolRefAttr table, int64_t width) {
  return builder.create<graph::EmbedOp>(location, rows(width), ids, table);
}
Value GraphBuilder::rmsNorm(Value x, FlatSymbolRefAttr weight, double epsilon, int64_t heads) {
  return builder.create<graph::RmsNormOp>(location, x.getType(), x, weight.getValue(),
                                          llvm::APFloat(static_cast<float>(epsilon)), heads);
}
Value GraphBuilder::linear(Value x, FlatSymbolRefAttr weight, FlatSymbolRefAttr bias, Value residual) {
  int64_t width = module->lookupSymbol<graph::ParameterOp>(weight).getShape()[0];
  return builder.create<graph::LinearOp>(location, rows(width), x, weight, bias, residual);
}
Value GraphBuilder::linear(Value x, const Source &source, bool biased, Value residual) {
  StringRef stem = source.tensor;
  stem.consume_back(".weight");
  FlatSymbolRefAttr weight = matrix(source.tensor, source);
  return linear(x, weight, biased ? biases((stem + ".bias").str(), source) : FlatSymbolRefAttr(), residual);
}
SmallVector<Value> GraphBuilder::linears(Value x, StringRef name, ArrayRef<Source> sources, bool biased) {
  SmallVector<Value> results;
  while (!sources.empty()) {
    StringRef format = formatOf(sources.front());
    ArrayRef<Source> alike = sources.take_while([&](const Source &source) { return formatOf(source) == format; });
    sources = sources.drop_front(alike.size());
    if (alike.size() == 1) {
      results.push_back(linear(x, alike.front(), biased));
      continue;
    }
    FlatSymbolRefAttr weight = matrix(name, alike);
    Value all = linear(x, weight, biased ? biases((name + ".bias").str(), alike) : FlatSymbolRefAttr());
    int64_t offset = 0;
    for (const Source &source : alike) {
      results.push_back(columns(all, offset, source.rows));
      offset += source.rows;
    }
  }
  return results;
}
Value GraphBuilder::columns(Value x, int64_t offset, int64_t width) {
  return builder.create<graph::ColumnsOp>(location, rows(width), x, offset);
}
Value GraphBuilder::rope(Value x, const Rope &rope, FlatSymbolRefAttr frequencies, graph::RopePairs pairs,
                         int64_t heads, int64_t offset) {
  return builder.create<graph::RopeOp>(location, x.getType(), x, positions, frequencies.getValue(), pairs, heads,
                                       offset, llvm::APFloat(rope.factor));
}
Value GraphBuilder::glu(Value gate, Value up) {
  return builder.create<graph::GluOp>(location, gate.getType(), gate, up);
}
Value GraphBuilder::selectRows(Value x) {
  return builder.create<graph::SelectRowsOp>(location, x.getType(), x, logitRows);
}

Value GraphBuilder::gatedNetwork(Value x, StringRef prefix, int64_t hidden, int64_t inner, Value residual,
                                 bool biased) {
  Source gate{(prefix + "gate_proj.weight").str(), inner, hidden}, up{(prefix + "up_proj.weight").str(), inner, hidden},
      down{(prefix + "down_proj.weight").str(), hidden, inner};
  SmallVector<Value> both = linears(x, (prefix + "gate_up").str(), {gate, up}, biased);
  return linear(glu(both[0], both[1]), down, biased, residual);
}

Value GraphBuilder::routedExperts(Value x, StringRef prefix, const Routing &routing, int64_t hidden, int64_t inner,
                                  Value shared, Value residual) {
  std::string router = (prefix + "gate.weight").str();
  Value logits = linear(x, matrix(router, {{router, routing.experts, hidden}}, "f32"));
  auto route = builder.create<graph::RouteOp>(
      location, RankedTensorType::get({ShapedType::kDynamic, routing.top}, builder.getI32Type()), rows(routing.top),
      logits,
      routing.biased ? vector((prefix + "gate.e_score_correction_bias").str(), routing.experts) : FlatSymbolRefAttr(),
      routing.score, routing.top, routing.groups, routing.groupsKept, routing.groupScore, routing.normalize,
      llvm::APFloat(routing.scale));
  SmallVector<Source> gates, ups, downs;
  for (int64_t number = 0; number < routing.experts; ++number) {
    std::string expert = (prefix + "experts." + llvm::Twine(number) + ".").str();
    gates.push_back({expert + "gate_proj.weight", inner, hidden});
    ups.push_back({expert + "up_proj.weight", inner, hidden});
    downs.push_back({expert + "down_proj.weight", hidden, inner});
  }
  std::string record = (prefix + "experts").str();
  return builder.create<graph::ExpertsOp>(
      location, rows(hidden), x, route.getIds(), route.getWeights(), bank(record + ".gate", gates, "", record),
      bank(record + ".up", ups, "", record), bank(record + ".down", downs, "", record), shared, residual);
}

llvm::Expected<ImportedModel> GraphBuilder::finish(StringRef family, int64_t vocabulary, int64_t maximumContext) {
  if (llvm::Error error = config().takeError())
    return std::move(error);
  if (problem)
    return llvm::createStringError(*problem);
  if (failed(verify(*module)))
    return llvm::createStringError("internal error: the imported graph does not verify");
  ImportedModel model;
  for (const checkpoint::TensorInfo &tensor : checkpoint.tensors())
    if (!used.contains(tensor.name))
      model.leftOut.push_back(tensor.name);
  llvm::append_range(model.notes, checkpoint.notes());
  model.module = std::move(module);
  model.family = family.str();
  model.vocabulary = vocabulary;
  model.maximumContext = maximumContext;
  model.parameterCount = parameterCount;
  return model;
}

} // namespace freeport::frontend
