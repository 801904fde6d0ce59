// `freeport perplexity`: how well a model predicts a text. The text is tokenised whole and cut into windows that do not
// overlap; each window follows the begin token, and all of its tokens are predicted.
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"
#include "runtime/session.h"

#include <fmt/format.h>

#include <cmath>

namespace freeport::cli {
namespace {

struct PerplexityArguments {
  std::string model, file;
  DeviceArguments device;
  int64_t window = 512;
};

/// Bytes of logits that are kept at once.
constexpr int64_t kLogitBytes = 64 << 20;

/// -log(softmax(logits)[token]), in double.
double surprise(std::span<const float> logits, int32_t token) {
  float maximum = logits[0];
  for (float logit : logits)
    maximum = std::max(maximum, logit);
  double sum = 0;
  for (float logit : logits)
    sum += std::exp(double(logit) - maximum);
  return std::log(sum) + maximum - logits[size_t(token)];
}

/// The sum over all tokens, in windows of `size`; without a begin token (-1), over all but the first, which stands in
/// for it.
Result<double> predict(Session &session, std::span<const int32_t> tokens, int64_t begin, size_t size) {
  FP_ASSIGN_OR_RETURN(const int32_t sequence, session.add());
  const size_t first = begin < 0 ? 1 : 0;
  ProgressLine progress;
  double total = 0;
  std::vector<Row> rows;
  for (size_t at = first; at < tokens.size(); at += size) {
    const size_t end = std::min(at + size, tokens.size());
    FP_RETURN_IF_ERROR(session.rewind(sequence, 0));
    for (size_t done = at; done < end; done += rows.size()) {
      if (interrupted)
        return Status(Code::kCancelled, "interrupted");
      // The row of a token holds the logits of the next: a window's first is predicted by the begin token.
      rows.clear();
      for (size_t i = done; i < std::min(end, done + size_t(session.logit_rows())); ++i)
        rows.push_back({i > at ? tokens[i - 1] : begin < 0 ? tokens[0] : int32_t(begin), sequence, true});
      FP_RETURN_IF_ERROR(session.step(rows));
      for (size_t i = 0; i < rows.size(); ++i)
        total += surprise(session.logits(i), tokens[done + i]);
      const size_t seen = done + rows.size() - first;
      progress.show(fmt::format("{} of {} tokens, perplexity so far {:.4f}", seen, tokens.size() - first,
                                std::exp(total / double(seen))));
    }
  }
  return total;
}

Status measure(const PerplexityArguments &arguments) {
  FP_ASSIGN_OR_RETURN(std::shared_ptr<Model> model, open_model(arguments.model, arguments.device));
  const package::Manifest &manifest = model->package().manifest();
  const int64_t vocabulary = int64_t(manifest.vocabulary_size()), context = int64_t(manifest.maximum_context());
  if (arguments.window > context)
    return Status(Code::kOutOfRange, fmt::format("expects a window of at most {} tokens, the model's context, got {}",
                                                 context, arguments.window));
  FP_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, freeport::open_tokenizer(model->package()));
  FP_ASSIGN_OR_RETURN(const std::string text, read_text(arguments.file));
  FP_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, tokenizer->encode(text, {.add_special_tokens = false}));
  const int64_t begin = manifest.text()->beginning_token();
  const size_t first = begin < 0 ? 1 : 0;
  if (tokens.size() <= first)
    return Status(Code::kInvalidArgument, fmt::format("{}: expects text of at least {} tokens, got {}", arguments.file,
                                                      first + 1, tokens.size()));
  SessionOptions options;
  options.context = arguments.window;
  options.step_tokens = options.logit_rows =
      std::clamp<int64_t>(kLogitBytes / (4 * vocabulary), 1, std::min<int64_t>(128, arguments.window - 1));
  FP_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::create(model, options));
  const size_t size = size_t(arguments.window) - 1, count = tokens.size() - first;
  FP_ASSIGN_OR_RETURN(const double total, predict(*session, tokens, begin, size));
  fmt::print("{} tokens in {} windows of {}: {:.6f} nats per token, perplexity {:.5f}\n", count,
             (count + size - 1) / size, size, total / double(count), std::exp(total / double(count)));
  return Status();
}

} // namespace

void add_perplexity(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("perplexity", "How well a model predicts a text; lower is better");
  auto arguments = std::make_shared<PerplexityArguments>();
  verb->add_option("model", arguments->model, "A package (freeport compile)")->required();
  verb->add_option("-f,--file", arguments->file, "The text, in UTF-8")->required();
  verb->add_option("--window", arguments->window,
                   "Tokens of a window, the begin token among them; figures compare at one size only, by default 512")
      ->check(CLI::Range(2, 1 << 24));
  add_device_options(*verb, arguments->device);
  verb->footer("The last number on standard output is the perplexity.\n"
               "Example:  freeport perplexity model.port -f eval.txt");
  verb->callback([arguments, &action] {
    action = [arguments] {
      const Status status = measure(*arguments);
      return status.ok() ? 0 : fail(status);
    };
  });
}

} // namespace freeport::cli
