// `freeport compare`: what a second package of a model (fewer bits, other numerics) does to the predictions of the
// first.
#include "runtime/cli/progress.h"
#include "runtime/cli/windows.h"
#include "runtime/step_trace.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

namespace freeport::cli {
namespace {

struct CompareArguments {
  std::string models[2];
  WindowArguments windows;
  DeviceArguments device;
};

/// One of the two: a step that also remembers which experts its routers chose.
class Side {
public:
  Status open(const std::string &path, const CompareArguments &arguments) {
    FP_ASSIGN_OR_RETURN(model_, open_model(path, arguments.device));
    FP_ASSIGN_OR_RETURN(windows_, Windows::read(*model_, arguments.windows));
    FP_ASSIGN_OR_RETURN(session_, windows_.session(model_));
    return Status();
  }
  const Windows &windows() const { return windows_; }
  Session &session() const { return *session_; }

  Status step(std::span<const Row> rows) {
    chosen_.clear();
    StepTrace trace(*session_);
    FP_RETURN_IF_ERROR(trace.begin(rows));
    Status status;
    for (size_t number = 0; number < trace.size() && status.ok(); ++number) {
      status = trace.run(number);
      if (status.ok() && trace.operation(number).starts_with("route "))
        status = remember(trace, number, rows.size());
    }
    return trace.end(status);
  }

  /// Sorted ids of experts, one set for each router and row, routers in order.
  const std::vector<std::vector<int32_t>> &chosen() const { return chosen_; }

private:
  /// A route's second binding is the ids, [rows, chosen].
  Status remember(const StepTrace &trace, size_t number, size_t rows) {
    const size_t top = std::strtoull(std::string(trace.operation(number).substr(6)).c_str(), nullptr, 10);
    FP_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, trace.read(number, 1));
    if (bytes.size() < 4 * top * rows)
      return Status(Code::kInvalidArgument, fmt::format("'{}': expects {} bytes of ids, got {}",
                                                        trace.operation(number), 4 * top * rows, bytes.size()));
    for (size_t row = 0; row < rows; ++row) {
      std::vector<int32_t> &ids = chosen_.emplace_back(top);
      std::memcpy(ids.data(), bytes.data() + 4 * top * row, 4 * top);
      std::sort(ids.begin(), ids.end());
    }
    return Status();
  }

  std::shared_ptr<Model> model_;
  Windows windows_;
  std::unique_ptr<Session> session_;
  std::vector<std::vector<int32_t>> chosen_;
};

size_t best(std::span<const float> logits) {
  return size_t(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

class Comparison {
public:
  Status operator()(const CompareArguments &arguments) {
    for (int i = 0; i < 2; ++i)
      FP_RETURN_IF_ERROR(sides_[i].open(arguments.models[i], arguments));
    const Windows &windows = sides_[0].windows();
    if (windows.tokens() != sides_[1].windows().tokens() || vocabulary(0) != vocabulary(1))
      return Status(Code::kInvalidArgument,
                    fmt::format("expects two packages of one vocabulary, got {} tokens of {} and {} of {}",
                                windows.tokens().size(), vocabulary(0), sides_[1].windows().tokens().size(),
                                vocabulary(1)));
    Session *const sessions[] = {&sides_[0].session(), &sides_[1].session()};
    ProgressLine progress;
    FP_RETURN_IF_ERROR(windows.walk(sessions, [&](std::span<const Row> rows, std::span<const int32_t> next) {
      const Status status = step(rows, next);
      progress.show(fmt::format("{} of {} tokens", divergences_.size(), windows.predicted()));
      return status;
    }));
    progress.clear();
    report(arguments);
    return Status();
  }

private:
  size_t vocabulary(int side) const {
    return size_t(sides_[side].session().model().package().manifest().vocabulary_size());
  }

  Status step(std::span<const Row> rows, std::span<const int32_t> next) {
    for (Side &side : sides_)
      FP_RETURN_IF_ERROR(side.step(rows));
    for (size_t i = 0; i < rows.size(); ++i)
      compare(sides_[0].session().logits(i), sides_[1].session().logits(i), size_t(next[i]));
    const auto &a = sides_[0].chosen(), &b = sides_[1].chosen();
    if (a.size() != b.size())
      return Status(Code::kInvalidArgument,
                    fmt::format("expects two packages of one model, got {} and {} choices of routers in a step",
                                a.size(), b.size()));
    choices_ += a.size();
    for (size_t i = 0; i < a.size(); ++i)
      flips_ += a[i] != b[i];
    return Status();
  }

  void compare(std::span<const float> a, std::span<const float> b, size_t next) {
    const double sums[] = {log_sum_exp(a), log_sum_exp(b)};
    surprises_[0] += sums[0] - a[next], surprises_[1] += sums[1] - b[next];
    double divergence = 0;
    for (size_t i = 0; i < a.size(); ++i)
      divergence += std::exp(a[i] - sums[0]) * ((a[i] - sums[0]) - (b[i] - sums[1]));
    divergences_.push_back(std::max(divergence, 0.0)); // rounding
    agreements_ += best(a) == best(b);
  }

  void report(const CompareArguments &arguments) {
    const double count = double(divergences_.size());
    double sum = 0;
    for (double each : divergences_)
      sum += each;
    std::sort(divergences_.begin(), divergences_.end());
    const double high = divergences_[size_t(0.99 * (count - 1) + 0.5)];
    for (int i = 0; i < 2; ++i)
      fmt::print("perplexity of {}: {:.5f}\n", arguments.models[i], std::exp(surprises_[i] / count));
    fmt::print("tokens predicted: {}\n"
               "mean KL divergence, nats: {:.6f}\n"
               "99th percentile of KL divergence, nats: {:.6f}\n"
               "top-1 agreement, %: {:.3f}\n",
               divergences_.size(), sum / count, high, 100 * double(agreements_) / count);
    if (choices_)
      fmt::print("router flips, % of {} choices: {:.3f}\n", choices_, 100 * double(flips_) / double(choices_));
  }

  Side sides_[2];
  double surprises_[2] = {};
  std::vector<double> divergences_;
  size_t agreements_ = 0, choices_ = 0, flips_ = 0;
};

} // namespace

void add_compare(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("compare", "How far the predictions of a second package are from the first's");
  auto arguments = std::make_shared<CompareArguments>();
  verb->add_option("first", arguments->models[0], "The package to compare with, e.g. one with more bits")->required();
  verb->add_option("second", arguments->models[1], "A package of the same model")->required();
  add_window_options(*verb, arguments->windows);
  add_device_options(*verb, arguments->device);
  verb->footer("KL divergence is that of the second's distribution from the first's, for each token of the text. A "
               "router flips where the two\nchoose different sets of experts for a token in a layer.\n"
               "Example:  freeport compare model-f32.port model-q4.port -f eval.txt");
  verb->callback([arguments, &action] {
    action = [arguments] {
      const Status status = Comparison()(*arguments);
      return status.ok() ? 0 : fail(status);
    };
  });
}

} // namespace freeport::cli
