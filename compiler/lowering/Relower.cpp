// fp_relower_…: the commands behind `freeport tune`. The package's own graph is lowered again with another schedule;
// weights and all that is said of the model stay.
#include "compiler/lowering/FillError.h"
#include "compiler/lowering/Pipeline.h"
#include "compiler/lowering/Register.h"
#include "compiler/lowering/RunPasses.h"
#include "compiler/package/Manifest.h"
#include "dialects/launch/Launch.h"
#include "runtime/compiler_api.h"
#include "runtime/package_generated.h"
#include "runtime/package_header.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"

#include <cstring>

using namespace mlir;
using llvm::createStringError;
namespace schema = freeport::package;

namespace freeport {
namespace {

class Relowering {
public:
  explicit Relowering(const fp_relower_options &options) : options(options) {}

  llvm::Error begin(fp_schedule &own);
  llvm::Expected<const char *> tryOut(const fp_schedule &schedule, llvm::StringRef backend, llvm::StringRef target);
  llvm::Error finish(const fp_schedule &schedule, llvm::StringRef note);

private:
  bool progress(const char *what, uint64_t done = 0, uint64_t total = 0) const {
    return !options.progress || options.progress(options.progress_context, what, done, total);
  }
  llvm::StringRef content(const schema::Segment &segment) const {
    return {static_cast<const char *>(options.package) + segment.offset(), segment.size()};
  }
  llvm::Expected<std::vector<Target>> findTargets() const;
  llvm::Expected<OwningOpRef<ModuleOp>> parseGraph();
  llvm::Error checkParameters(llvm::ArrayRef<ParameterPlan> plans) const;
  /// Writes all that lies behind the weights but the manifest, which it returns.
  llvm::Expected<std::string> write(const fp_schedule &schedule, llvm::ArrayRef<Target> wanted, llvm::StringRef note);

  const fp_relower_options options;
  const schema::Manifest *manifest = nullptr;
  std::vector<Target> targets;
  std::unique_ptr<MLIRContext> context;
  std::optional<PackageWriter> writer;
};

/// The package's targets, in its order; all of them must be known, since every kernel is compiled anew. A backend of
/// which it has as many executables as there are profiles is there with all of them. Where some were left out, targets
/// tell which are there if they bear the profiles' names; those of Vulkan do not.
llvm::Expected<std::vector<Target>> Relowering::findTargets() const {
  std::vector<Target> found;
  for (const schema::Executable *executable : *manifest->executables()) {
    auto backend = findBackend(executable->backend()->string_view());
    if (!backend)
      return backend.takeError();
    if (found.empty() || found.back().backend != *backend)
      found.push_back({*backend, {}});
    found.back().profiles.push_back(executable->target()->str());
  }
  for (Target &target : found) {
    std::vector<std::string> all = target.backend->profiles();
    const std::string listed = llvm::join(all, ", ");
    if (target.profiles.size() == all.size())
      target.profiles = std::move(all);
    else
      for (const std::string &profile : target.profiles)
        if (!llvm::is_contained(all, profile))
          return createStringError("expects code for all profiles of " + target.backend->name().str() + " (" + listed +
                                   ") or for some that its targets name, got " +
                                   std::to_string(target.profiles.size()) + " executables with a target '" + profile +
                                   "'; compile the checkpoint with --target " + target.backend->name().str());
  }
  return found;
}

llvm::Error Relowering::begin(fp_schedule &own) {
  const auto *bytes = static_cast<const char *>(options.package);
  PackageHeader header;
  std::memcpy(&header, bytes, sizeof(header));
  manifest = schema::GetManifest(bytes + header.manifest_offset);
  if (manifest->graph_version() != 1)
    return createStringError("expects a graph of version 1, got " + std::to_string(manifest->graph_version()) +
                             "; compile the checkpoint with this build");
  uint64_t first = header.manifest_offset;
  auto look = [&](const schema::Segment *segment) {
    if (segment && segment->size())
      first = std::min(first, segment->offset());
  };
  for (const schema::Executable *executable : *manifest->executables())
    look(executable->content());
  for (const schema::Segment *segment : {manifest->graph(), manifest->text()->tokenizer(),
                                         manifest->text()->tokenizer_config(), manifest->text()->chat_template()})
    look(segment);
  if (first < options.weights_end)
    return createStringError("expects all weights before the first segment, which begins at byte " +
                             std::to_string(first) + ", got weights to byte " + std::to_string(options.weights_end));
  auto found = findTargets();
  if (!found)
    return found.takeError();
  targets = std::move(*found);
  const TargetDescription description = targets.back().backend->describe();
  own = {description.tokensPerTile[0], description.tokensPerTile[1], 0};
  context = createContext();
  if (auto graph = parseGraph(); !graph) // before the weights are copied
    return graph.takeError();
  auto created = PackageWriter::create(options.output);
  if (!created)
    return created.takeError();
  writer.emplace(std::move(*created));
  return writer->writeWeights({bytes, options.weights_end},
                              [&](uint64_t done, uint64_t total) { return progress("copying weights", done, total); });
}

llvm::Expected<OwningOpRef<ModuleOp>> Relowering::parseGraph() {
  std::string diagnostics;
  ScopedDiagnosticHandler handler(context.get(), [&](Diagnostic &diagnostic) {
    if (diagnostics.empty())
      diagnostics = diagnostic.str();
    return success();
  });
  auto module = parseSourceString<ModuleOp>(content(*manifest->graph()), ParserConfig(context.get()));
  if (!module)
    return createStringError("the package's graph does not parse: " + diagnostics);
  if (llvm::Error error = checkParameters(planParameters(*module)))
    return std::move(error);
  return module;
}

/// The graph's parameters are those that the manifest has places for.
llvm::Error Relowering::checkParameters(llvm::ArrayRef<ParameterPlan> plans) const {
  const auto &parameters = *manifest->parameters();
  if (plans.size() != parameters.size())
    return createStringError("expects the graph to have the manifest's " + std::to_string(parameters.size()) +
                             " parameters, got " + std::to_string(plans.size()));
  for (auto [number, plan] : llvm::enumerate(plans)) {
    const schema::Parameter &parameter = *parameters.Get(number);
    if (plan.name != parameter.name()->string_view() ||
        kernel::stringifyBlockFormat(plan.format) != llvm::StringRef(parameter.format()->string_view()) ||
        !std::equal(plan.shape.begin(), plan.shape.end(), parameter.shape()->begin(), parameter.shape()->end(),
                    [](int64_t a, uint64_t b) { return uint64_t(a) == b; }))
      return createStringError("expects the graph to have the manifest's parameter '" + parameter.name()->str() +
                               "' with its format and shape, got '" + plan.name + "'");
  }
  return llvm::Error::success();
}

llvm::Expected<std::string> Relowering::write(const fp_schedule &schedule, llvm::ArrayRef<Target> wanted,
                                              llvm::StringRef note) {
  auto parsed = parseGraph();
  if (!parsed)
    return parsed.takeError();
  ManifestParts parts;
  parts.plans = planParameters(**parsed);
  parts.places.resize(parts.plans.size());
  TargetDescription description = targets.back().backend->describe();
  if (schedule.few_tokens_per_tile)
    description.tokensPerTile[0] = schedule.few_tokens_per_tile;
  if (schedule.many_tokens_per_tile)
    description.tokensPerTile[1] = schedule.many_tokens_per_tile;
  const bool fast = manifest->numerics()->string_view() == "fast";
  if (llvm::Error error =
          runPasses(*parsed, [&](OpPassManager &passes) { buildKernelStage(passes, description, fast); }))
    return std::move(error);
  if (llvm::Error error = runPasses(*parsed, buildLaunchStage))
    return std::move(error);
  ModuleOp launch = **parsed;
  if (launch.getOps<launch::ProgramOp>().empty())
    return createStringError("expects the package's graph to have a function @step, got none");
  llvm::SmallVector<NamedAttribute> attributes;
  if (fast)
    attributes.push_back({StringAttr::get(context.get(), kFastNumerics), UnitAttr::get(context.get())});
  else
    parts.selfTests = addSelfTests(launch);
  if (schedule.prefetch_distance)
    attributes.push_back({StringAttr::get(context.get(), kPrefetchDistanceAttribute),
                          IntegerAttr::get(IntegerType::get(context.get(), 64), schedule.prefetch_distance)});
  auto compiled = compileKernels(launch, wanted, attributes, [&](const char *what) { return progress(what); });
  if (!compiled)
    return compiled.takeError();
  for (auto &[backend, executable] : *compiled) {
    auto segment = writer->writeSegment({executable.content.data(), executable.content.size()});
    if (!segment)
      return segment.takeError();
    parts.executables.push_back({backend, {std::move(executable), *segment}});
  }
  // What depends on the schedule is new; the rest of the manifest stays, but for where its segments lie.
  const std::string builtBytes = buildManifest(launch, {}, parts);
  auto built = std::unique_ptr<schema::ManifestT>(schema::GetManifest(builtBytes.data())->UnPack());
  auto result = std::unique_ptr<schema::ManifestT>(manifest->UnPack());
  result->program = std::move(built->program);
  result->states = std::move(built->states);
  result->kernels = std::move(built->kernels);
  result->executables = std::move(built->executables);
  result->self_tests = std::move(built->self_tests);
  for (schema::Segment *segment : {result->graph.get(), result->text->tokenizer.get(),
                                   result->text->tokenizer_config.get(), result->text->chat_template.get()}) {
    if (!segment)
      continue;
    auto moved = writer->writeSegment(content(*segment));
    if (!moved)
      return moved.takeError();
    *segment = schema::Segment(moved->offset, moved->size, moved->checksum);
  }
  std::string &shaped = result->provenance->options;
  shaped = llvm::StringRef(shaped).split(" --tune ").first.str() + note.str();
  flatbuffers::FlatBufferBuilder builder;
  schema::FinishManifestBuffer(builder, schema::CreateManifest(builder, result.get()));
  return std::string(reinterpret_cast<const char *>(builder.GetBufferPointer()), builder.GetSize());
}

llvm::Expected<const char *> Relowering::tryOut(const fp_schedule &schedule, llvm::StringRef backend,
                                                llvm::StringRef target) {
  std::vector<Target> wanted;
  for (const Target &each : targets)
    if (each.backend->name() == "reference")
      wanted.push_back(each);
    else if (each.backend->name() == backend)
      wanted.push_back({each.backend, {target.str()}});
  auto bytes = write(schedule, wanted, "");
  if (!bytes)
    return bytes.takeError();
  if (llvm::Error error = writer->seal(*bytes))
    return std::move(error);
  return writer->temporaryPath().c_str();
}

llvm::Error Relowering::finish(const fp_schedule &schedule, llvm::StringRef note) {
  if (llvm::Error error = writer->truncate(options.weights_end))
    return error;
  auto bytes = write(schedule, targets, note);
  return bytes ? writer->finish(*bytes) : bytes.takeError();
}

} // namespace
} // namespace freeport

struct fp_relowering : freeport::Relowering {
  using Relowering::Relowering;
};

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT fp_relowering *fp_relower_begin(const fp_relower_options *options, fp_schedule *own, fp_error *error) {
  auto relowering = std::make_unique<fp_relowering>(*options);
  if (llvm::Error failure = relowering->begin(*own)) {
    freeport::fillError(std::move(failure), error);
    return nullptr;
  }
  return relowering.release();
}

EXPORT const char *fp_relower_try(fp_relowering *relowering, const fp_schedule *schedule, const char *backend,
                                  const char *target, fp_error *error) {
  auto path = relowering->tryOut(*schedule, backend, target);
  if (path)
    return *path;
  freeport::fillError(path.takeError(), error);
  return nullptr;
}

EXPORT int32_t fp_relower_finish(fp_relowering *relowering, const fp_schedule *schedule, const char *note,
                                 fp_error *error) {
  llvm::Error failure = relowering->finish(*schedule, note);
  return failure ? freeport::fillError(std::move(failure), error) : 0;
}

EXPORT void fp_relower_end(fp_relowering *relowering) { delete relowering; }
