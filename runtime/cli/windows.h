// A text as models are judged on it: its tokens in windows that do not overlap, each behind the begin token, and every
// token predicted.
#pragma once

#include "runtime/cli/verbs.h"
#include "runtime/session.h"

#include <algorithm>

namespace freeport::cli {

struct WindowArguments {
  std::string file;
  int64_t window = 512; ///< tokens, the begin token among them
};
void add_window_options(CLI::App &verb, WindowArguments &arguments);

/// log(sum(exp(logits))), in double.
double log_sum_exp(std::span<const float> logits);

class Windows {
public:
  /// The text of `arguments` as the model's tokenizer cuts it; an error where it is too short, or the window too long.
  static Result<Windows> read(const Model &model, const WindowArguments &arguments);

  const std::vector<int32_t> &tokens() const { return tokens_; }
  /// Tokens that are predicted; without a begin token the first stands in for it.
  size_t predicted() const { return tokens_.size() - first(); }
  size_t count() const { return (predicted() + size() - 1) / size(); }
  size_t size() const { return size_t(window_) - 1; }
  /// A session that holds one window, with logits for every row of a step.
  Result<std::unique_ptr<Session>> session(const std::shared_ptr<Model> &model) const;

  /// One step of each session: its rows, and the token that each row predicts.
  using Step = std::function<Status(std::span<const Row> rows, std::span<const int32_t> next)>;
  /// Every window in order: `step` is called for each piece that fits all `sessions`, which are new.
  Status walk(std::span<Session *const> sessions, const Step &step) const;

private:
  size_t first() const { return begin_ < 0 ? 1 : 0; }

  std::vector<int32_t> tokens_;
  int32_t begin_ = -1;
  int64_t window_ = 0;
};

} // namespace freeport::cli
