// `freeport logits`: the model's logits behind every token of a prompt, for comparing implementations.
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"
#include "runtime/npy.h"
#include "runtime/session.h"

#include <fmt/format.h>

namespace freeport::cli {
namespace {

struct LogitsArguments {
  std::string model, ids, ids_file, output;
  DeviceArguments device;
  int64_t chunk = 0;
};

/// Rows of logits that are kept at once where --chunk says nothing.
constexpr int64_t kDefaultChunk = 128;

Result<std::vector<int32_t>> read_ids(const LogitsArguments &arguments) {
  if (arguments.ids_file.empty())
    return parse_ids(arguments.ids);
  FP_ASSIGN_OR_RETURN(const std::vector<int64_t> wide, read_npy_integers(arguments.ids_file));
  std::vector<int32_t> ids;
  for (int64_t id : wide) {
    if (id < 0 || id > INT32_MAX)
      return Status(Code::kInvalidArgument, fmt::format("{}: expects token ids, got {}", arguments.ids_file, id));
    ids.push_back(int32_t(id));
  }
  return ids;
}

Status write_logits(const LogitsArguments &arguments) {
  FP_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, read_ids(arguments));
  if (ids.empty())
    return Status(Code::kInvalidArgument, "expects at least one token id, got none");
  FP_ASSIGN_OR_RETURN(std::shared_ptr<Model> model, open_model(arguments.model, arguments.device));
  const package::Manifest &manifest = model->package().manifest();
  const uint64_t vocabulary = manifest.vocabulary_size();
  if (ids.size() > manifest.maximum_context())
    return Status(Code::kOutOfRange, fmt::format("expects at most {} tokens, the model's context, got {}",
                                                 manifest.maximum_context(), ids.size()));
  for (int32_t id : ids)
    if (uint64_t(id) >= vocabulary)
      return Status(Code::kInvalidArgument, fmt::format("expects token ids of 0 to {}, got {}", vocabulary - 1, id));
  const auto &variants = *manifest.program()->variants();
  const int64_t most = int64_t(variants.Get(variants.size() - 1)->maximum_tokens());
  const int64_t chunk = std::min({arguments.chunk ? arguments.chunk : kDefaultChunk, int64_t(ids.size()), most});
  SessionOptions options;
  options.context = int64_t(ids.size());
  options.step_tokens = options.logit_rows = chunk;
  FP_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::create(model, options));
  FP_ASSIGN_OR_RETURN(const int32_t sequence, session->add());
  const int64_t shape[] = {int64_t(ids.size()), int64_t(vocabulary)};
  FP_ASSIGN_OR_RETURN(NpyWriter writer, NpyWriter::create(arguments.output, shape));
  ProgressLine progress;
  std::vector<Row> rows;
  for (size_t done = 0; done < ids.size(); done += rows.size()) {
    if (interrupted)
      return Status(Code::kCancelled, arguments.output + ": interrupted, nothing written");
    rows.clear();
    for (size_t i = done; i < std::min(ids.size(), done + size_t(chunk)); ++i)
      rows.push_back({ids[i], sequence, true});
    FP_RETURN_IF_ERROR(session->step(rows));
    for (size_t i = 0; i < rows.size(); ++i)
      FP_RETURN_IF_ERROR(writer.append(session->logits(i)));
    progress.show(fmt::format("{} of {} tokens", done + rows.size(), ids.size()));
  }
  return writer.finish();
}

} // namespace

void add_logits(CLI::App &app, Action &action) {
  CLI::App *verb =
      app.add_subcommand("logits", "Logits behind every token of a prompt, as float32 [tokens, vocabulary]");
  auto arguments = std::make_shared<LogitsArguments>();
  verb->add_option("model", arguments->model, "A package (freeport compile)")->required();
  CLI::Option_group *source = verb->add_option_group("tokens", "The prompt");
  source->add_option("--ids", arguments->ids, "Token ids, separated by commas");
  source->add_option("--ids-file", arguments->ids_file, "A .npy file of token ids, one-dimensional integers");
  source->require_option(1);
  verb->add_option("-o,--output", arguments->output, "The .npy file to write")->required();
  add_device_options(*verb, arguments->device);
  verb->add_option("--chunk", arguments->chunk, "Tokens of one step; the logits are the same whatever it is")
      ->check(CLI::Range(1, 1 << 20));
  verb->footer("Example:  freeport logits model.port --ids 1,2,3 -o logits.npy");
  verb->callback([arguments, &action] {
    action = [arguments] {
      const Status status = write_logits(*arguments);
      return status.ok() ? 0 : fail(status);
    };
  });
}

} // namespace freeport::cli
