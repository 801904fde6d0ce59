// `freeport inspect`: what a package holds, for people and as JSON; one tensor as values; every byte verified.
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"
#include "runtime/npy.h"
#include "runtime/package.h"
#include "runtime/size.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <map>

namespace freeport::cli {
namespace {

using nlohmann::json;

struct InspectArguments {
  std::string model, tensor, output, device;
  bool as_json = false, verify = false;
};

uint64_t bytes_of(const package::Parameter &parameter) {
  return parameter_shape(parameter).entries * parameter.entry_size();
}

std::string text_of(const flatbuffers::String *text) { return text ? text->str() : ""; }

/// Bytes that a size expression takes with these values of the symbols; -1 where it has none.
int64_t value_of(const package::Size &size, const int64_t (&symbols)[kSymbols]) {
  std::vector<fp_size_instruction> code;
  for (const package::SizeInstruction *each : *size.code())
    code.push_back({int32_t(each->opcode()), each->value()});
  const auto value = evaluate_size({code.data(), code.size()}, symbols);
  return value.ok() ? value.value() : -1;
}

/// What a session needs beside the weights: for one token and for the largest step of one sequence.
json memory_plan(const package::Manifest &manifest) {
  const package::Program &program = *manifest.program();
  const int64_t most = int64_t(program.variants()->Get(program.variants()->size() - 1)->maximum_tokens());
  const int64_t pages = (int64_t(manifest.maximum_context()) + kPageTokens - 1) / kPageTokens;
  uint64_t page_bytes = 0, weights = 0;
  for (const package::State *state : *manifest.states())
    page_bytes += state->page_bytes();
  for (const package::Parameter *parameter : *manifest.parameters())
    weights += bytes_of(*parameter);
  return {{"weight_bytes", weights},
          {"arena_bytes_one_token", value_of(*program.arena(), {1, 1, 1, pages})},
          {"arena_bytes_largest_step", value_of(*program.arena(), {most, 1, 1, pages})},
          {"largest_step_tokens", most},
          {"page_tokens", manifest.page_tokens()},
          {"page_bytes", page_bytes},
          {"state_bytes_maximum_context", uint64_t(pages) * page_bytes}};
}

json describe_parameter(const package::Parameter &parameter) {
  return {{"name", parameter.name()->str()},
          {"format", parameter.format()->str()},
          {"shape", std::vector<uint64_t>(parameter.shape()->begin(), parameter.shape()->end())},
          {"offset", parameter.offset()},
          {"bytes", bytes_of(parameter)},
          {"entry_bytes", parameter.entry_size()},
          {"entry_stride", parameter.entry_stride()},
          {"checksum", fmt::format("{:016x}", parameter.checksum())},
          {"source", text_of(parameter.source())}};
}

json describe_executable(const package::Executable &executable) {
  json conditions = json::array();
  if (executable.conditions())
    for (const flatbuffers::String *condition : *executable.conditions())
      conditions.push_back(condition->str());
  return {{"backend", executable.backend()->str()},
          {"target", executable.target()->str()},
          {"conditions", conditions},
          {"version", executable.version()},
          {"offset", executable.content()->offset()},
          {"bytes", executable.content()->size()}};
}

json describe_variant(const package::Variant &variant) {
  size_t dispatches = 0, barriers = 0;
  for (auto kind : *variant.commands_type())
    ++(package::Command(kind) == package::Command::Barrier ? barriers : dispatches);
  return {{"minimum_tokens", variant.minimum_tokens()},
          {"maximum_tokens", variant.maximum_tokens()},
          {"dispatches", dispatches},
          {"barriers", barriers}};
}

template <typename Vector, typename Each> json list(const Vector *from, Each each) {
  json result = json::array();
  if (from)
    for (const auto *element : *from)
      result.push_back(each(*element));
  return result;
}

/// Adds to every executable whether the device takes it.
Status add_choice(const Package &package, const std::string &device, json &executables) {
  FP_ASSIGN_OR_RETURN(const Choice choice, examine_device(package, device));
  const auto &all = *package.manifest().executables();
  for (flatbuffers::uoffset_t i = 0; i < all.size(); ++i) {
    json &each = executables[i];
    each["taken"] = all.Get(i) == choice.taken();
    for (const Rejection &rejection : choice.rejected)
      if (rejection.executable == all.Get(i))
        each["rejected"] = rejection.reason;
  }
  return Status();
}

json describe(const Package &package) {
  const package::Manifest &manifest = package.manifest();
  const package::Provenance &provenance = *manifest.provenance();
  const package::Text &text = *manifest.text();
  json end_tokens = json::array();
  if (text.end_tokens())
    end_tokens = std::vector<int64_t>(text.end_tokens()->begin(), text.end_tokens()->end());
  auto string = [](const flatbuffers::String &each) { return json(each.str()); };
  return {
      {"path", package.path()},
      {"bytes", package.bytes().size()},
      {"format_version", manifest.format_version()},
      {"numerics", manifest.numerics()->str()},
      {"weights", manifest.weights_format()->str()},
      {"parameter_count", manifest.parameter_count()},
      {"vocabulary_size", manifest.vocabulary_size()},
      {"maximum_context", manifest.maximum_context()},
      {"provenance",
       {{"compiler", text_of(provenance.compiler())},
        {"checkpoint", text_of(provenance.checkpoint())},
        {"family", text_of(provenance.family())},
        {"options", text_of(provenance.options())},
        {"left_out", list(provenance.left_out(), string)},
        {"notes", list(provenance.notes(), string)}}},
      {"executables", list(manifest.executables(), describe_executable)},
      {"kernels", list(manifest.kernels(), [](const package::Kernel &kernel) { return json(kernel.name()->str()); })},
      {"variants", list(manifest.program()->variants(), describe_variant)},
      {"states", list(manifest.states(),
                      [](const package::State &state) {
                        return json{{"name", state.name()->str()}, {"page_bytes", state.page_bytes()}};
                      })},
      {"memory", memory_plan(manifest)},
      {"text",
       {{"tokenizer", text.tokenizer() != nullptr},
        {"chat_template", text.chat_template() != nullptr},
        {"begin_token", text.beginning_token()},
        {"end_tokens", end_tokens}}},
      {"generation",
       {{"sampled", manifest.generation()->sampled()},
        {"temperature", manifest.generation()->temperature()},
        {"top_k", manifest.generation()->top_k()},
        {"top_p", manifest.generation()->top_p()}}},
      {"parameters", list(manifest.parameters(), describe_parameter)},
  };
}

double megabytes(const json &bytes) { return double(bytes.get<int64_t>()) / 1e6; }

void print_text(const json &all) {
  auto row = [](std::string_view name, const std::string &value) { fmt::print("{:<12}{}\n", name, value); };
  const json &from = all["provenance"], &memory = all["memory"];
  row("package", fmt::format("{}, {:.1f} MB, format version {}", all["path"].get<std::string>(),
                             megabytes(all["bytes"]), all["format_version"].get<int>()));
  row("model",
      fmt::format("{} from {}, {:.1f} M parameters, vocabulary {}, context {}", from["family"].get<std::string>(),
                  from["checkpoint"].get<std::string>(), megabytes(all["parameter_count"]),
                  all["vocabulary_size"].get<int64_t>(), all["maximum_context"].get<int64_t>()));
  row("made by",
      from["compiler"].get<std::string>() + (from["options"].empty() ? "" : ", ") + from["options"].get<std::string>());
  row("numerics", all["numerics"].get<std::string>());
  for (const json &each : all["executables"])
    row("target",
        fmt::format("{} {}, {:.2f} MB{}{}{}{}", each["backend"].get<std::string>(), each["target"].get<std::string>(),
                    megabytes(each["bytes"]), each["conditions"].empty() ? "" : ", needs ",
                    fmt::join(each["conditions"].get<std::vector<std::string>>(), " "),
                    each.value("taken", false)  ? "; taken"
                    : each.contains("rejected") ? "; rejected: "
                                                : "",
                    each.value("rejected", "")));
  row("kernels", fmt::format("{}", all["kernels"].size()));
  for (const json &each : all["variants"])
    row("step", fmt::format("of {} to {} tokens: {} dispatches, {} barriers", each["minimum_tokens"].get<int64_t>(),
                            each["maximum_tokens"].get<int64_t>(), each["dispatches"].get<int64_t>(),
                            each["barriers"].get<int64_t>()));
  row("memory",
      fmt::format("weights {:.1f} MB (mapped), scratch {:.2f} MB for one token and {:.1f} MB for {}",
                  megabytes(memory["weight_bytes"]), megabytes(memory["arena_bytes_one_token"]),
                  megabytes(memory["arena_bytes_largest_step"]), memory["largest_step_tokens"].get<int64_t>()));
  row("", fmt::format("states {:.1f} kB a token, {:.1f} MB for the whole context",
                      double(memory["page_bytes"].get<int64_t>()) / kPageTokens / 1e3,
                      megabytes(memory["state_bytes_maximum_context"])));
  const json &text = all["text"];
  row("text",
      fmt::format("{}, {}, begin token {}, end tokens {}", text["tokenizer"].get<bool>() ? "tokenizer" : "no tokenizer",
                  text["chat_template"].get<bool>() ? "chat template" : "no chat template",
                  text["begin_token"].get<int64_t>(), text["end_tokens"].dump()));
  std::map<std::string, std::pair<size_t, uint64_t>> formats;
  for (const json &each : all["parameters"]) {
    auto &[count, bytes] = formats[each["format"].get<std::string>()];
    ++count;
    bytes += each["bytes"].get<uint64_t>();
  }
  for (const auto &[format, sum] : formats)
    row("weights", fmt::format("{:<4} {:>5} tensors {:>12.1f} MB", format, sum.first, double(sum.second) / 1e6));
  for (const json &note : from["notes"])
    row("note", note.get<std::string>());
  if (!from["left_out"].empty())
    row("left out", fmt::format("{} tensors that the model does not use, such as {}", from["left_out"].size(),
                                from["left_out"][0].get<std::string>()));
  size_t width = 0;
  for (const json &each : all["parameters"])
    width = std::max(width, each["name"].get_ref<const std::string &>().size());
  fmt::print("\n{:<{}}  {:<6} {:<20} {:>14}\n", "parameter", width, "format", "shape", "bytes");
  for (const json &each : all["parameters"])
    fmt::print("{:<{}}  {:<6} {:<20} {:>14}\n", each["name"].get<std::string>(), width,
               each["format"].get<std::string>(), each["shape"].dump(), each["bytes"].get<uint64_t>());
}

Status write_tensor(const Package &package, const std::string &name, const std::string &output) {
  const package::Parameter *parameter = package.manifest().parameters()->LookupByKey(name.c_str());
  if (!parameter)
    return Status(Code::kNotFound, fmt::format("{}: expects the name of a parameter, got '{}'; freeport inspect lists "
                                               "them",
                                               package.path(), name));
  const auto [entries, rows, inputs] = parameter_shape(*parameter);
  const BlockFormat format = *find_block_format(parameter->format()->string_view());
  const std::vector<int64_t> shape(parameter->shape()->begin(), parameter->shape()->end());
  FP_ASSIGN_OR_RETURN(NpyWriter writer, NpyWriter::create(output, shape));
  std::vector<float> values(inputs);
  ProgressLine progress;
  for (uint64_t entry = 0; entry < entries; ++entry) {
    const auto records =
        package.bytes().subspan(parameter->offset() + entry * parameter->entry_stride(), parameter->entry_size());
    for (uint64_t row = 0; row < rows; ++row) {
      if (interrupted)
        return Status(Code::kCancelled, "interrupted");
      if (shape.size() == 1)
        std::memcpy(values.data(), records.data(), inputs * sizeof(float));
      else
        unpack_row(format, records, row, values);
      FP_RETURN_IF_ERROR(writer.append(values));
      progress.show(fmt::format("{}: row {} of {}", name, entry * rows + row, entries * rows));
    }
  }
  return writer.finish();
}

Status verify(const Package &package) {
  {
    ProgressLine line;
    FP_RETURN_IF_ERROR(package.verify([&](uint64_t done, uint64_t total) {
      line.show_bytes("verifying", done, total);
      return !interrupted;
    }));
  }
  fmt::print(stderr, "{}: all {:.1f} MB are as they were written\n", package.path(),
             double(package.bytes().size()) / 1e6);
  return Status();
}

Status inspect(const InspectArguments &arguments) {
  FP_ASSIGN_OR_RETURN(const std::shared_ptr<const Package> package, Package::open(arguments.model));
  if (!arguments.tensor.empty())
    FP_RETURN_IF_ERROR(write_tensor(*package, arguments.tensor, arguments.output));
  if (arguments.verify)
    FP_RETURN_IF_ERROR(verify(*package));
  json all = describe(*package);
  if (!arguments.device.empty())
    FP_RETURN_IF_ERROR(add_choice(*package, arguments.device, all["executables"]));
  if (arguments.as_json)
    fmt::print("{}\n", all.dump(2, ' ', false, json::error_handler_t::replace));
  else if (arguments.tensor.empty() && !arguments.verify)
    print_text(all);
  return Status();
}

} // namespace

void add_inspect(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("inspect", "Show what a package holds");
  auto arguments = std::make_shared<InspectArguments>();
  verb->add_option("model", arguments->model, "A package (freeport compile)")->required();
  verb->add_flag("--json", arguments->as_json, "As one JSON object");
  verb->add_option("--device", arguments->device, "Tell which target this device takes, and why not the others");
  CLI::Option *tensor =
      verb->add_option("--tensor", arguments->tensor, "Write this parameter's values, as float32, to -o");
  CLI::Option *output = verb->add_option("-o,--output", arguments->output, "The .npy file for --tensor");
  tensor->needs(output);
  output->needs(tensor);
  verb->add_flag("--verify", arguments->verify, "Read every byte, weights and padding included, and compare checksums");
  verb->footer("Example:  freeport inspect model.port --tensor model.norm.weight -o norm.npy");
  verb->callback([arguments, &action] {
    action = [arguments] {
      const Status status = inspect(*arguments);
      return status.ok() ? 0 : fail(status);
    };
  });
}

} // namespace freeport::cli
