// Symbols become indices: parameters, states, inputs and kernels are numbered as the manifest lists them.
#include "compiler/package/Manifest.h"

#include "dialects/graph/Graph.h"
#include "dialects/launch/Launch.h"
#include "runtime/package_generated.h"

#include <nlohmann/json.hpp>

using namespace mlir;

namespace freeport {

namespace schema = freeport::package;

std::vector<ParameterPlan> planParameters(ModuleOp graph) {
  std::vector<ParameterPlan> plans;
  for (auto parameter : graph.getOps<graph::ParameterOp>()) {
    ParameterPlan &plan = plans.emplace_back();
    plan.name = parameter.getName().str();
    plan.format = *kernel::symbolizeBlockFormat(parameter.getFormat());
    plan.shape = parameter.getShape().vec();
    if (parameter.getRecord())
      plan.record = parameter.getRecord()->str();
    if (auto values = parameter.getValues())
      plan.values = values->vec();
    if (!parameter.getEntries())
      continue;
    ArrayAttr entries = *parameter.getEntries();
    for (Attribute entry : entries) {
      std::vector<Piece> &pieces = plan.entries.emplace_back();
      for (Attribute attribute : cast<ArrayAttr>(entry)) {
        auto piece = cast<graph::PieceAttr>(attribute);
        pieces.push_back({piece.getTensor().str(), piece.getFirstRow(), piece.getRows(), piece.getTransposed()});
      }
    }
  }
  llvm::sort(plans, [](auto &a, auto &b) { return a.name < b.name; });
  return plans;
}

std::vector<std::string> kernelNames(ModuleOp launch) {
  std::vector<std::string> names;
  for (auto function : launch.getOps<kernel::FuncOp>())
    names.push_back(function.getName().str());
  return names;
}

namespace {

class Writer {
public:
  std::string build(ModuleOp launch, const frontend::ImportedModel &model, const ManifestParts &parts);

private:
  flatbuffers::FlatBufferBuilder b;
  llvm::StringMap<uint32_t> parameters, states, kernels;
  std::vector<std::pair<std::string, AffineExpr>> inputs, outputs;

  static void append(AffineExpr expression, std::vector<schema::SizeInstruction> &code) {
    if (auto constant = dyn_cast<AffineConstantExpr>(expression)) {
      code.emplace_back(schema::SizeOpcode::constant, constant.getValue());
      return;
    }
    if (auto symbol = dyn_cast<AffineSymbolExpr>(expression)) {
      code.emplace_back(schema::SizeOpcode::symbol, symbol.getPosition());
      return;
    }
    auto binary = cast<AffineBinaryOpExpr>(expression);
    append(binary.getLHS(), code);
    append(binary.getRHS(), code);
    switch (expression.getKind()) {
    case AffineExprKind::Add:
      code.emplace_back(schema::SizeOpcode::add, 0);
      return;
    case AffineExprKind::Mul:
      code.emplace_back(schema::SizeOpcode::multiply, 0);
      return;
    case AffineExprKind::CeilDiv:
      code.emplace_back(schema::SizeOpcode::ceil_divide, 0);
      return;
    case AffineExprKind::FloorDiv:
      code.emplace_back(schema::SizeOpcode::floor_divide, 0);
      return;
    default:
      llvm_unreachable("lowerings make no other sizes");
    }
  }
  flatbuffers::Offset<schema::Size> size(AffineExpr expression) {
    std::vector<schema::SizeInstruction> code;
    append(expression, code);
    return schema::CreateSize(b, b.CreateVectorOfStructs(code));
  }
  flatbuffers::Offset<schema::Size> size(Attribute attribute) {
    return size(cast<launch::SizeAttr>(attribute).getExpression());
  }
  auto sizes(ArrayAttr attributes) {
    std::vector<flatbuffers::Offset<schema::Size>> list;
    for (Attribute attribute : attributes)
      list.push_back(size(attribute));
    return b.CreateVector(list);
  }

  /// The number of the named input or output; the largest size that any variant gives it counts.
  static uint32_t number(std::vector<std::pair<std::string, AffineExpr>> &list, StringRef name, AffineExpr bytes) {
    for (auto [index, entry] : llvm::enumerate(list))
      if (entry.first == name)
        return index;
    list.push_back({name.str(), bytes});
    return list.size() - 1;
  }

  flatbuffers::Offset<schema::Binding> binding(Value buffer) {
    Operation *op = buffer.getDefiningOp();
    if (auto weights = dyn_cast<launch::WeightsOp>(op))
      return schema::CreateBinding(b, schema::BindingKind::parameter, parameters.lookup(weights.getParameter()));
    if (auto state = dyn_cast<launch::StateMemoryOp>(op))
      return schema::CreateBinding(b, schema::BindingKind::state, states.lookup(state.getState()));
    if (auto input = dyn_cast<launch::InputOp>(op))
      return schema::CreateBinding(b, schema::BindingKind::input,
                                   number(inputs, input.getName(), input.getBytes().getExpression()));
    if (auto output = dyn_cast<launch::OutputOp>(op))
      return schema::CreateBinding(b, schema::BindingKind::output,
                                   number(outputs, output.getName(), output.getBytes().getExpression()));
    auto arena = cast<launch::ArenaOp>(op);
    auto offset = size(arena.getOffset()), bytes = size(arena.getBytes());
    return schema::CreateBinding(b, schema::BindingKind::arena, 0, offset, bytes);
  }

  flatbuffers::Offset<schema::Variant> variant(launch::VariantOp op) {
    std::vector<schema::Command> kinds;
    std::vector<flatbuffers::Offset<void>> commands;
    for (Operation &command : op.getBody().front()) {
      if (isa<launch::BarrierOp>(command)) {
        kinds.push_back(schema::Command::Barrier);
        commands.push_back(schema::CreateBarrier(b).Union());
      } else if (auto dispatch = dyn_cast<launch::DispatchOp>(command)) {
        std::vector<flatbuffers::Offset<schema::Binding>> bindings;
        for (Value buffer : dispatch.getBuffers())
          bindings.push_back(binding(buffer));
        auto grid = sizes(dispatch.getGrid()), scalars = sizes(dispatch.getScalars());
        auto operation = b.CreateSharedString(dispatch.getImplements().str());
        kinds.push_back(schema::Command::Dispatch);
        commands.push_back(schema::CreateDispatch(b, kernels.lookup(dispatch.getKernel()), grid,
                                                  b.CreateVector(bindings), scalars, operation)
                               .Union());
      }
    }
    auto kindVector = b.CreateVector(kinds);
    return schema::CreateVariant(b, op.getMinimum(), op.getMaximum(), kindVector, b.CreateVector(commands));
  }

  auto buffers(const std::vector<std::pair<std::string, AffineExpr>> &list) {
    std::vector<flatbuffers::Offset<schema::Buffer>> tables;
    for (auto &[name, bytes] : list) {
      auto text = b.CreateString(name);
      tables.push_back(schema::CreateBuffer(b, text, size(bytes)));
    }
    return b.CreateVector(tables);
  }
  static schema::Segment segment(const FileSegment &place) { return {place.offset, place.size, place.checksum}; }
};

std::string Writer::build(ModuleOp launch, const frontend::ImportedModel &model, const ManifestParts &parts) {
  std::vector<flatbuffers::Offset<schema::Parameter>> parameterTables;
  for (auto [plan, place] : llvm::zip(parts.plans, parts.places)) {
    parameters[plan.name] = parameterTables.size();
    auto name = b.CreateString(plan.name), format = b.CreateSharedString(stringifyBlockFormat(plan.format).str());
    auto shape = b.CreateVector(std::vector<uint64_t>(plan.shape.begin(), plan.shape.end()));
    auto source = b.CreateString(plan.entries.empty() ? "computed" : plan.entries.front().front().tensor);
    parameterTables.push_back(schema::CreateParameter(b, name, format, shape, place.offset, place.entrySize,
                                                      place.entryStride, place.checksum, source));
  }
  std::vector<flatbuffers::Offset<schema::State>> stateTables;
  for (auto state : launch.getOps<launch::StateOp>()) {
    states[state.getName()] = stateTables.size();
    auto name = b.CreateString(state.getName().str());
    stateTables.push_back(schema::CreateState(b, name, state.getPageBytes()));
  }
  std::vector<flatbuffers::Offset<schema::Kernel>> kernelTables;
  for (auto function : launch.getOps<kernel::FuncOp>()) {
    kernels[function.getName()] = kernelTables.size();
    auto name = b.CreateString(function.getName().str());
    unsigned memory = function.getNumMemoryArguments();
    kernelTables.push_back(schema::CreateKernel(b, name, memory, function.getNumArguments() - memory));
  }
  auto programOp = *launch.getOps<launch::ProgramOp>().begin();
  std::vector<flatbuffers::Offset<schema::Variant>> variants;
  for (auto op : programOp.getBody().getOps<launch::VariantOp>())
    variants.push_back(variant(op));
  std::vector<std::string> symbols;
  for (unsigned index = 0; index < launch::kSymbols; ++index)
    symbols.push_back(launch::symbolName(static_cast<launch::Symbol>(index)).str());
  auto programName = b.CreateString("step");
  auto symbolVector = b.CreateVectorOfStrings(symbols);
  auto arena = size(programOp.getArenaAttr());
  auto inputVector = buffers(inputs), outputVector = buffers(outputs);
  auto program =
      schema::CreateProgram(b, programName, symbolVector, arena, inputVector, outputVector, b.CreateVector(variants));

  std::vector<flatbuffers::Offset<schema::Executable>> executables;
  for (auto &[backend, executable] : parts.executables) {
    auto name = b.CreateString(backend), target = b.CreateString(executable.first.target);
    auto conditions = b.CreateVectorOfStrings(executable.first.conditions);
    schema::Segment content = segment(executable.second);
    executables.push_back(schema::CreateExecutable(b, name, target, conditions, executable.first.version, &content));
  }

  std::vector<flatbuffers::Offset<schema::SelfTest>> selfTests;
  for (const SelfTest &test : parts.selfTests) {
    std::vector<flatbuffers::Offset<schema::Bytes>> arguments;
    for (const std::vector<char> &argument : test.arguments)
      arguments.push_back(
          schema::CreateBytes(b, b.CreateVector(reinterpret_cast<const uint8_t *>(argument.data()), argument.size())));
    auto vector = b.CreateVector(arguments);
    selfTests.push_back(schema::CreateSelfTest(b, kernels.lookup(test.kernel), vector, test.resultBytes, test.result));
  }

  using nlohmann::json;
  json config = json::parse(parts.configText, nullptr, false),
       generation = json::parse(parts.generationText, nullptr, false);
  auto lookup = [&](const char *key) -> json {
    for (const json *object : {&generation, &config})
      if (object->is_object() && object->contains(key) && !(*object)[key].is_null())
        return (*object)[key];
    return json();
  };
  std::vector<int64_t> ends;
  json end = lookup("eos_token_id"), begin = lookup("bos_token_id");
  // A token outside of the vocabulary can be neither chosen nor fed: it is as good as none.
  auto isToken = [&](const json &id) {
    return id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < model.vocabulary;
  };
  for (const json &id : end.is_array() ? end : json::array({end}))
    if (isToken(id))
      ends.push_back(id.get<int64_t>());
  // Likewise a default of sampling that makes no sense, such as a top-k of -1 for "off".
  auto number = [&](const char *key, double fallback, double least, double most) {
    json value = lookup(key);
    double found = value.is_number() ? value.get<double>() : fallback;
    return found >= least && found <= most ? found : fallback;
  };
  json sampled = lookup("do_sample");
  auto endVector = b.CreateVector(ends);
  auto optional = [&](const std::optional<FileSegment> &place) { return segment(place.value_or(FileSegment())); };
  schema::Segment tokenizer = optional(parts.tokenizer), tokenizerConfig = optional(parts.tokenizerConfig);
  schema::Segment chat = optional(parts.chatTemplate);
  auto text =
      schema::CreateText(b, parts.tokenizer ? &tokenizer : nullptr, parts.tokenizerConfig ? &tokenizerConfig : nullptr,
                         parts.chatTemplate ? &chat : nullptr, isToken(begin) ? begin.get<int64_t>() : -1, endVector);
  auto defaults = schema::CreateGeneration(b, number("temperature", 1.0, 0, 1e6),
                                           static_cast<int32_t>(number("top_k", 0, 0, INT32_MAX)),
                                           number("top_p", 1.0, 1e-6, 1), sampled.is_boolean() && sampled.get<bool>());
  auto compiler = b.CreateString("freeport " FREEPORT_VERSION), checkpointName = b.CreateString(parts.checkpointName);
  auto family = b.CreateString(model.family), options = b.CreateString(parts.options);
  auto provenance =
      schema::CreateProvenance(b, compiler, checkpointName, family, options, b.CreateVectorOfStrings(model.leftOut),
                               b.CreateVectorOfStrings(model.notes));
  auto numerics = b.CreateString(parts.numerics), weights = b.CreateString(parts.weights);
  auto parameterVector = b.CreateVector(parameterTables);
  auto stateVector = b.CreateVector(stateTables);
  auto kernelVector = b.CreateVector(kernelTables);
  auto executableVector = b.CreateVector(executables);
  schema::Segment graph = segment(parts.graph);
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<schema::SelfTest>>> selfTestVector;
  if (!selfTests.empty())
    selfTestVector = b.CreateVector(selfTests);
  schema::FinishManifestBuffer(b, schema::CreateManifest(b, 1, 1, numerics, weights, model.parameterCount,
                                                         model.vocabulary, model.maximumContext, 32, parameterVector,
                                                         stateVector, program, kernelVector, executableVector, &graph,
                                                         text, defaults, provenance, selfTestVector));
  return std::string(reinterpret_cast<const char *>(b.GetBufferPointer()), b.GetSize());
}

} // namespace

std::string buildManifest(ModuleOp launch, const frontend::ImportedModel &model, const ManifestParts &parts) {
  return Writer().build(launch, model, parts);
}

} // namespace freeport
