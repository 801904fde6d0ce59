// `freeport compile`: calls the compiler library and shows its progress.
#include "runtime/cli/compiler_library.h"
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"
#include "runtime/compiler_api.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

namespace freeport::cli {
namespace {

struct CompileArguments {
  std::string checkpoint, output, weights, numerics = "portable", cache_type_k, targets = "cpu", dump_stages,
                                           stop_after;
};

/// Says what a user should know of the package that was just written.
void report(const std::string &path) {
  constexpr size_t kListed = 8;
  auto package = Package::open(path);
  if (!package.ok())
    return;
  const package::Provenance &provenance = *(*package)->manifest().provenance();
  if (provenance.notes())
    for (const flatbuffers::String *note : *provenance.notes())
      fmt::print(stderr, "note: {}\n", note->string_view());
  const auto *names = provenance.left_out();
  if (!names || names->size() == 0)
    return;
  std::string list;
  for (flatbuffers::uoffset_t i = 0; i < std::min<size_t>(names->size(), kListed); ++i)
    list += fmt::format("{}{}", i ? ", " : "", names->Get(i)->string_view());
  fmt::print(stderr, "left out {} tensors that the model does not use: {}{}\n", names->size(), list,
             names->size() > kListed ? ", … (freeport inspect --json lists all)" : "");
}

int compile(const CompileArguments &arguments) {
  if (arguments.output.empty() && arguments.stop_after.empty())
    return fail("expects -o FILE, the package to write (or --stop-after STAGE)");
  std::error_code code;
  if (std::filesystem::exists(arguments.checkpoint + "/tokenizer.json", code)) {
    auto tokenizer = open_tokenizer(arguments.checkpoint);
    if (!tokenizer.ok() && tokenizer.status().code() != Code::kUnsupported)
      return fail(fmt::format("{}/tokenizer.json: {}", arguments.checkpoint, tokenizer.status().message()));
    if (!tokenizer.ok())
      fmt::print(stderr, "warning: {}/tokenizer.json: {}; verbs that read or write text will refuse the package\n",
                 arguments.checkpoint, tokenizer.status().message());
  }
  Result<void *> function = find_compiler_function("fp_compile");
  if (!function.ok())
    return fail(function.status());
  auto text = [](const std::string &value) { return value.empty() ? nullptr : value.c_str(); };
  auto begin = std::chrono::steady_clock::now();
  fp_error error = {};
  int32_t result;
  {
    ProgressLine line;
    fp_compile_options options = {arguments.checkpoint.c_str(),   arguments.output.c_str(),
                                  arguments.weights.c_str(),      arguments.numerics.c_str(),
                                  arguments.cache_type_k.c_str(), arguments.targets.c_str(),
                                  text(arguments.dump_stages),    text(arguments.stop_after),
                                  show_compiler_progress,         &line};
    result = reinterpret_cast<fp_compile_function>(*function)(&options, &error);
  }
  if (result)
    return fail(error.message);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (!arguments.stop_after.empty())
    fmt::print(stderr, "stopped after {} in {:.1f} s\n", arguments.stop_after, seconds);
  else
    fmt::print(stderr, "{}: {:.1f} MB in {:.1f} s\n", arguments.output,
               std::filesystem::file_size(arguments.output, code) / 1e6, seconds);
  if (arguments.stop_after.empty())
    report(arguments.output);
  return 0;
}

} // namespace

void add_compile(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("compile", "Compile a checkpoint (a folder or a GGUF file) into a package");
  auto arguments = std::make_shared<CompileArguments>();
  verb->add_option("checkpoint", arguments->checkpoint, "Folder with config.json and *.safetensors, or a GGUF file")
      ->required();
  verb->add_option("-o,--output", arguments->output, "The package to write, e.g. model.port");
  verb->add_option("--weights", arguments->weights,
                   "Format of the large matrices: q4, q8, f16, bf16, f32, or keep, each as it is stored (default: keep "
                   "for GGUF files, q4 for folders)");
  verb->add_option("--numerics", arguments->numerics,
                   "portable: the same bits on every device; fast: devices may fuse multiplications with additions and "
                   "approximate exp, and long prompts expand latent attention, so that bits differ (freeport compare "
                   "tells how far)")
      ->check(CLI::IsMember({"portable", "fast"}))
      ->capture_default_str();
  verb->add_option(
          "--cache-type-k", arguments->cache_type_k,
          "q8: attention keeps keys as 8-bit integers with a scale for each 32 of them, and multiplies integers "
          "(default: keys are kept as values are, in f16, or f32 with float weights)")
      ->check(CLI::IsMember({"q8"}));
  verb->add_option(
          "--target", arguments->targets,
          "Backends to compile for, separated by commas; NAME:PREFIX leaves out those of its profiles that do not "
          "begin so, e.g. cpu:x86-64")
      ->capture_default_str();
  verb->add_option("--dump-stages", arguments->dump_stages,
                   "Write 1-graph.mlir, 2-kernel.mlir, 3-launch.mlir to this folder");
  verb->add_option("--stop-after", arguments->stop_after, "End after a stage: graph, kernel or launch");
  verb->footer("Example:  freeport compile ./tiny-moe -o tiny-moe.port --weights q8");
  verb->callback([arguments, &action] { action = [arguments] { return compile(*arguments); }; });
}

} // namespace freeport::cli
