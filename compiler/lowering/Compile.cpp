// fp_compile: the command behind `freeport compile`. Import, lower, one executable per target, pack, write.
#include "compiler/frontend/Frontend.h"
#include "compiler/lowering/FillError.h"
#include "compiler/lowering/Pipeline.h"
#include "compiler/lowering/Register.h"
#include "compiler/lowering/RunPasses.h"
#include "compiler/package/Manifest.h"
#include "runtime/compiler_api.h"

#include "mlir/IR/MLIRContext.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <set>

using namespace mlir;
using llvm::createStringError;

namespace freeport {
namespace {

class Compilation {
public:
  explicit Compilation(const fp_compile_options &options) : options(options) {}
  llvm::Error run();

private:
  llvm::Expected<std::vector<Target>> findTargets();
  bool progress(const char *what, uint64_t done = 0, uint64_t total = 0) {
    return !options.progress || options.progress(options.progress_context, what, done, total);
  }
  /// Writes the stage's IR if asked to, and tells whether the compile ends here.
  llvm::Expected<bool> endStage(ModuleOp module, unsigned number, llvm::StringRef name);
  llvm::Error writePackage(checkpoint::Checkpoint &checkpoint, const frontend::ImportedModel &model, ModuleOp launch,
                           std::vector<ParameterPlan> plans, const std::string &graphText,
                           llvm::ArrayRef<Target> targets);

  const fp_compile_options &options;
  std::string weights; ///< of `options`, or the checkpoint's default
};

std::string print(ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  module.print(stream);
  stream << "\n";
  return text;
}

llvm::Expected<bool> Compilation::endStage(ModuleOp module, unsigned number, llvm::StringRef name) {
  if (options.dump_stages) {
    llvm::SmallString<256> path(options.dump_stages);
    if (std::error_code code = llvm::sys::fs::create_directories(path))
      return createStringError(path + ": " + code.message());
    llvm::sys::path::append(path, llvm::Twine(number) + "-" + name + ".mlir");
    std::error_code code;
    llvm::raw_fd_ostream stream(path, code);
    if (code)
      return createStringError(path + ": " + code.message());
    stream << print(module);
    stream.close();
    if (stream.has_error()) {
      code = stream.error();
      stream.clear_error();
      return createStringError(path + ": " + code.message());
    }
  }
  return options.stop_after && name == options.stop_after;
}

/// "NAME", with all profiles, or "NAME:PREFIX", with those that begin so.
llvm::Expected<std::vector<Target>> Compilation::findTargets() {
  std::vector<Target> targets;
  llvm::SmallVector<llvm::StringRef> names;
  llvm::StringRef(options.targets).split(names, ',', -1, /*KeepEmpty=*/false);
  names.insert(names.begin(), "reference"); // in every package, so that every package runs everywhere
  for (llvm::StringRef text : names) {
    auto [name, prefix] = text.split(':');
    auto backend = findBackend(name);
    if (!backend)
      return backend.takeError();
    const std::vector<std::string> all = (*backend)->profiles();
    auto target = llvm::find_if(targets, [&](const Target &each) { return each.backend == *backend; });
    if (target == targets.end())
      target = targets.insert(target, {*backend, {}});
    std::vector<std::string> wanted; // in the backend's order
    bool found = false;
    for (const std::string &profile : all) {
      bool matches = llvm::StringRef(profile).starts_with(prefix);
      found |= matches;
      if (matches || llvm::is_contained(target->profiles, profile))
        wanted.push_back(profile);
    }
    if (!found)
      return createStringError("expects --target " + name.str() + ":PREFIX where PREFIX begins one of " +
                               llvm::join(all, ", ") + ", got '" + prefix.str() + "'");
    target->profiles = std::move(wanted);
  }
  return targets;
}

llvm::Error Compilation::run() {
  static const std::set<llvm::StringRef> formats = {"", "keep", "q4", "q8", "f16", "bf16", "f32"};
  static const std::set<llvm::StringRef> stages = {"graph", "kernel", "launch"};
  if (!formats.count(options.weights))
    return createStringError("expects --weights keep, q4, q8, f16, bf16 or f32, got '" + std::string(options.weights) +
                             "'");
  if (options.stop_after && !stages.count(options.stop_after))
    return createStringError("expects --stop-after graph, kernel or launch, got '" + std::string(options.stop_after) +
                             "'");
  llvm::StringRef numerics = options.numerics;
  if (numerics != "portable" && numerics != "fast")
    return createStringError("expects --numerics portable or fast, got '" + numerics.str() + "'");
  if (llvm::StringRef type = options.cache_type_k; type != "" && type != "q8")
    return createStringError("expects --cache-type-k q8, got '" + type.str() + "'");
  progress("reading the checkpoint");
  auto checkpoint = checkpoint::Checkpoint::open(options.checkpoint);
  if (!checkpoint)
    return checkpoint.takeError();
  weights = *options.weights ? options.weights : checkpoint->isFile() ? "keep" : "q4";

  const std::unique_ptr<MLIRContext> context = createContext();
  const bool fast = numerics == "fast";
  auto model = frontend::importCheckpoint(*context, *checkpoint, {weights, options.cache_type_k, fast});
  if (!model)
    return model.takeError();
  ModuleOp module = *model->module;
  std::vector<ParameterPlan> plans = planParameters(module);
  auto ended = endStage(module, 1, "graph");
  if (!ended || *ended)
    return ended.takeError();
  std::string graphText = options.stop_after ? std::string() : print(module);

  progress("lowering");
  auto targets = findTargets();
  if (!targets)
    return targets.takeError();
  TargetDescription description = targets->back().backend->describe();
  if (llvm::Error error =
          runPasses(model->module, [&](OpPassManager &passes) { buildKernelStage(passes, description, fast); }))
    return error;
  ended = endStage(module, 2, "kernel");
  if (!ended || *ended)
    return ended.takeError();
  if (llvm::Error error = runPasses(model->module, buildLaunchStage))
    return error;
  ended = endStage(module, 3, "launch");
  if (!ended || *ended)
    return ended.takeError();
  return writePackage(*checkpoint, *model, module, std::move(plans), graphText, *targets);
}

llvm::Error Compilation::writePackage(checkpoint::Checkpoint &checkpoint, const frontend::ImportedModel &model,
                                      ModuleOp launch, std::vector<ParameterPlan> plans, const std::string &graphText,
                                      llvm::ArrayRef<Target> targets) {
  auto writer = PackageWriter::create(options.output);
  if (!writer)
    return writer.takeError();
  ManifestParts parts;
  if (llvm::StringRef(options.numerics) == "portable")
    parts.selfTests = addSelfTests(launch);
  llvm::SmallVector<NamedAttribute> attributes;
  if (llvm::StringRef(options.numerics) == "fast")
    attributes.push_back({StringAttr::get(launch.getContext(), kFastNumerics), UnitAttr::get(launch.getContext())});
  auto compiled = compileKernels(launch, targets, attributes, [&](const char *what) { return progress(what); });
  if (!compiled)
    return compiled.takeError();
  auto places = writer->writeWeights(
      plans, checkpoint, [&](uint64_t done, uint64_t total) { return progress("packing weights", done, total); });
  if (!places)
    return places.takeError();
  parts.plans = std::move(plans);
  parts.places = std::move(*places);
  for (auto &[backend, executable] : *compiled) {
    auto segment = writer->writeSegment({executable.content.data(), executable.content.size()});
    if (!segment)
      return segment.takeError();
    parts.executables.push_back({backend, {std::move(executable), *segment}});
  }
  auto graph = writer->writeSegment(graphText);
  if (!graph)
    return graph.takeError();
  parts.graph = *graph;
  for (auto [file, place] : {std::pair{"tokenizer.json", &parts.tokenizer},
                             {"tokenizer_config.json", &parts.tokenizerConfig},
                             {"chat_template.jinja", &parts.chatTemplate}}) {
    auto text = checkpoint.text(file);
    if (!text)
      return text.takeError();
    if (!*text)
      continue;
    auto segment = writer->writeSegment(**text);
    if (!segment)
      return segment.takeError();
    *place = *segment;
  }
  for (auto [file, target] :
       {std::pair{"config.json", &parts.configText}, {"generation_config.json", &parts.generationText}}) {
    auto text = checkpoint.text(file);
    if (!text)
      return text.takeError();
    *target = text->value_or("");
  }
  parts.weights = weights;
  parts.numerics = options.numerics;
  parts.checkpointName = llvm::sys::path::filename(llvm::StringRef(options.checkpoint).rtrim('/')).str();
  parts.options = "--weights " + parts.weights + (parts.numerics == "fast" ? " --numerics fast" : "");
  if (*options.cache_type_k)
    parts.options += " --cache-type-k " + std::string(options.cache_type_k);
  return writer->finish(buildManifest(launch, model, parts));
}

} // namespace
} // namespace freeport

extern "C" __attribute__((visibility("default"))) int32_t fp_compile(const fp_compile_options *options,
                                                                     fp_error *error) {
  llvm::Error failure = freeport::Compilation(*options).run();
  return failure ? freeport::fillError(std::move(failure), error) : 0;
}
