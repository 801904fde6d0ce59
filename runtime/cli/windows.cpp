#include "runtime/cli/windows.h"

#include <fmt/format.h>

#include <cmath>

namespace freeport::cli {

/// Bytes of logits that are kept at once.
constexpr int64_t kLogitBytes = 64 << 20;

void add_window_options(CLI::App &verb, WindowArguments &arguments) {
  verb.add_option("-f,--file", arguments.file, "The text, in UTF-8")->required();
  verb.add_option("--window", arguments.window,
                  "Tokens of a window, the begin token among them; figures compare at one size only, by default 512")
      ->check(CLI::Range(2, 1 << 24));
}

double log_sum_exp(std::span<const float> logits) {
  const float maximum = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits)
    sum += std::exp(double(logit) - maximum);
  return std::log(sum) + maximum;
}

Result<Windows> Windows::read(const Model &model, const WindowArguments &arguments) {
  const package::Manifest &manifest = model.package().manifest();
  const int64_t context = int64_t(manifest.maximum_context());
  if (arguments.window > context)
    return Status(Code::kOutOfRange, fmt::format("expects a window of at most {} tokens, the model's context, got {}",
                                                 context, arguments.window));
  FP_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, freeport::open_tokenizer(model.package()));
  FP_ASSIGN_OR_RETURN(const std::string text, read_text(arguments.file));
  Windows windows;
  windows.window_ = arguments.window;
  windows.begin_ = int32_t(manifest.text()->beginning_token());
  FP_ASSIGN_OR_RETURN(windows.tokens_, tokenizer->encode(text, {.add_special_tokens = false}));
  if (windows.tokens_.size() <= windows.first())
    return Status(Code::kInvalidArgument, fmt::format("{}: expects text of at least {} tokens, got {}", arguments.file,
                                                      windows.first() + 1, windows.tokens_.size()));
  return windows;
}

Result<std::unique_ptr<Session>> Windows::session(const std::shared_ptr<Model> &model) const {
  const int64_t vocabulary = int64_t(model->package().manifest().vocabulary_size());
  SessionOptions options;
  options.context = window_;
  options.step_tokens = options.logit_rows =
      std::clamp<int64_t>(kLogitBytes / (4 * vocabulary), 1, std::min<int64_t>(128, window_ - 1));
  return Session::create(model, options);
}

Status Windows::walk(std::span<Session *const> sessions, const Step &step) const {
  size_t piece = size();
  int32_t sequence = 0;
  for (Session *session : sessions) {
    FP_ASSIGN_OR_RETURN(sequence, session->add());
    piece = std::min(piece, size_t(session->logit_rows()));
  }
  std::vector<Row> rows;
  for (size_t at = first(); at < tokens_.size(); at += size()) {
    const size_t end = std::min(at + size(), tokens_.size());
    for (Session *session : sessions)
      FP_RETURN_IF_ERROR(session->rewind(sequence, 0));
    for (size_t done = at; done < end; done += rows.size()) {
      if (interrupted)
        return Status(Code::kCancelled, "interrupted");
      // The row of a token holds the logits of the next: a window's first is predicted by the begin token.
      rows.clear();
      for (size_t i = done; i < std::min(end, done + piece); ++i)
        rows.push_back({i > at ? tokens_[i - 1] : begin_ < 0 ? tokens_[0] : begin_, sequence, true});
      FP_RETURN_IF_ERROR(step(rows, std::span(tokens_).subspan(done, rows.size())));
    }
  }
  return Status();
}

} // namespace freeport::cli
