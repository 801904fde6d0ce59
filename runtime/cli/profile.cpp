// `freeport profile`: where the time of a step goes, operation by operation, beside what the machine can do. An
// operation's time is that of all threads over their number; what is left of the step they waited.
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"
#include "runtime/cli/work.h"
#include "runtime/machine.h"
#include "runtime/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>

namespace freeport::cli {
namespace {

struct ProfileArguments {
  std::string model;
  DeviceArguments device;
  int64_t prompt = 512, depth = 0, repeats = 5;
};

/// A step, measured several times.
struct MeasuredStep {
  std::vector<DispatchWork> dispatches;
  std::vector<std::vector<double>> microseconds; ///< of each dispatch, of all threads over their number
  std::vector<double> total;                     ///< of the step, in microseconds
  /// Between the end of the work before a barrier and the beginning of the work behind it, over all dispatches.
  std::vector<double> overhead;
};

class Profile {
public:
  explicit Profile(const ProfileArguments &arguments) : arguments_(arguments) {}

  Status operator()() {
    DeviceArguments device = arguments_.device;
    device.timings = true;
    FP_ASSIGN_OR_RETURN(model_, open_model(arguments_.model, device));
    const package::Manifest &manifest = model_->package().manifest();
    SessionOptions options;
    options.context = arguments_.depth + std::max<int64_t>(arguments_.prompt, 1);
    if (options.context > int64_t(manifest.maximum_context()))
      return Status(Code::kOutOfRange, fmt::format("expects a depth and a prompt of at most {} tokens together, the "
                                                   "model's context, got {}",
                                                   manifest.maximum_context(), options.context));
    options.observe = [this](const StepTimes &step) { keep(step); };
    FP_ASSIGN_OR_RETURN(session_, Session::create(model_, options));
    FP_ASSIGN_OR_RETURN(sequence_, session_->add());
    progress_.show("measuring the machine", /*always=*/true);
    FP_ASSIGN_OR_RETURN(bandwidth_, measure_read_bandwidth());
    threads_ = std::max(1, model_->description().threads);
    peak_ = measure_multiply_add_peak() * threads_;
    FP_RETURN_IF_ERROR(reach_depth());
    FP_ASSIGN_OR_RETURN(const MeasuredStep generation, measure(1));
    MeasuredStep prompt;
    const int64_t tokens = std::min(arguments_.prompt, session_->step_tokens());
    if (tokens > 1) {
      FP_ASSIGN_OR_RETURN(prompt, measure(tokens));
    }
    progress_.clear();
    report("one token", generation);
    if (tokens > 1)
      report(fmt::format("{} tokens", tokens), prompt);
    fmt::print("{}, {} of {}; memory reads {:.1f} GB/s, all cores do {:.1f} GMAC/s in floats\n", arguments_.model,
               model_->target(), model_->api().name, bandwidth_, peak_);
    return Status();
  }

private:
  int32_t token(int64_t place) const { return measured_token(model_->package().manifest(), place); }

  Status reach_depth() {
    std::vector<int32_t> tokens;
    for (int64_t place = 0; place < arguments_.depth; ++place)
      tokens.push_back(token(place));
    auto go_on = [](void *, size_t, size_t) { return !interrupted; };
    return tokens.empty() ? Status() : session_->feed(sequence_, tokens, 0, /*logits=*/false, go_on, nullptr);
  }

  /// A step of `tokens` tokens, once to warm up and then as often as asked for, each time from the same state.
  Result<MeasuredStep> measure(int64_t tokens) {
    measured_ = {dispatch_work(model_->package().manifest(), tokens, 1), {}, {}, {}};
    measured_.microseconds.resize(measured_.dispatches.size());
    std::vector<Row> rows;
    for (int64_t place = 0; place < tokens; ++place)
      rows.push_back({token(arguments_.depth + place), sequence_, place == tokens - 1});
    for (int64_t repeat = 0; repeat <= arguments_.repeats; ++repeat) {
      progress_.show(fmt::format("step of {}: {} of {}", tokens, repeat, arguments_.repeats), /*always=*/true);
      if (interrupted)
        return Status(Code::kCancelled, "interrupted");
      warm_ = repeat > 0;
      FP_RETURN_IF_ERROR(session_->step(rows));
      FP_RETURN_IF_ERROR(session_->rewind(sequence_, arguments_.depth));
    }
    return std::move(measured_);
  }

  /// One more measurement of the step.
  void keep(const StepTimes &step) {
    if (!warm_)
      return;
    std::vector<double> busy(measured_.dispatches.size());
    std::vector<uint64_t> begin(busy.size(), UINT64_MAX), end(busy.size());
    for (const fp_timing &piece : step.timings) {
      busy[piece.dispatch] += double(piece.end - piece.begin) / 1e3 / threads_;
      begin[piece.dispatch] = std::min(begin[piece.dispatch], piece.begin);
      end[piece.dispatch] = std::max(end[piece.dispatch], piece.end);
    }
    double between = 0;
    uint64_t last = 0, latest = 0; // ends before the last barrier, and of all
    for (size_t number = 0; number < busy.size(); ++number) {
      measured_.microseconds[number].push_back(busy[number]);
      if (begin[number] > end[number]) // its grid is empty
        continue;
      if (measured_.dispatches[number].after_barrier)
        last = latest;
      if (begin[number] > last && latest == last)
        between += double(begin[number] - last) / 1e3;
      latest = std::max(latest, end[number]);
    }
    measured_.total.push_back(std::chrono::duration<double, std::micro>(step.end - step.begin).count());
    measured_.overhead.push_back(between / double(busy.size()));
  }

  void report(const std::string &step, const MeasuredStep &measured) const {
    struct Row {
      int64_t count = 0;
      double microseconds = 0;
      Work work;
    };
    std::map<std::string, Row> operations;
    const double total = median(measured.total);
    for (size_t number = 0; number < measured.dispatches.size(); ++number) {
      const auto &[operation, kernel, work, barrier] = measured.dispatches[number];
      Row &row = operations[operation];
      ++row.count;
      row.microseconds += median(measured.microseconds[number]);
      row.work.bytes += work.bytes, row.work.multiply_adds += work.multiply_adds;
    }
    std::vector<std::pair<std::string, Row>> sorted(operations.begin(), operations.end());
    std::sort(sorted.begin(), sorted.end(),
              [](const auto &a, const auto &b) { return a.second.microseconds > b.second.microseconds; });
    double busy = 0;
    for (const auto &[operation, row] : sorted)
      busy += row.microseconds;
    fmt::print("{}: {} dispatches, {:.2f} ms, of which threads waited {:.2f} ms; {:.2f} µs between dispatches\n\n",
               step, measured.dispatches.size(), total / 1e3, std::max(total - busy, 0.0) / 1e3,
               median(measured.overhead));
    fmt::print(
        "| operation | dispatches | ms | share of the step | GB/s | share of bandwidth | GMAC/s | share of float peak "
        "|\n|---|---:|---:|---:|---:|---:|---:|---:|\n");
    for (const auto &[operation, row] : sorted) {
      const double seconds = row.microseconds / 1e6;
      const double bytes = row.work.bytes / seconds / 1e9, operationsPerSecond = row.work.multiply_adds / seconds / 1e9;
      fmt::print("| {} | {} | {:.3f} | {:.1f} % | {:.1f} | {:.2f} | {:.1f} | {:.2f} |\n", operation, row.count,
                 row.microseconds / 1e3, 100 * row.microseconds / total, bytes, bytes / bandwidth_, operationsPerSecond,
                 operationsPerSecond / peak_);
    }
    fmt::print("\n");
  }

  const ProfileArguments &arguments_;
  std::shared_ptr<Model> model_;
  std::unique_ptr<Session> session_;
  int32_t sequence_ = 0;
  double bandwidth_ = 0, peak_ = 0, threads_ = 1;
  MeasuredStep measured_;
  bool warm_ = false; ///< whether the step that runs counts
  ProgressLine progress_;
};

} // namespace

void add_profile(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("profile", "Where the time of a step goes, operation by operation");
  auto arguments = std::make_shared<ProfileArguments>();
  verb->add_option("model", arguments->model, "A package (freeport compile)")->required();
  const CLI::Range count(0, 1 << 24), some(1, 1 << 16);
  verb->add_option("-p,--prompt", arguments->prompt,
                   "Tokens of a prompt's step, by default 512, at most one step's; 0 or 1: only a generation's step")
      ->check(count);
  verb->add_option("-d,--depth", arguments->depth, "Tokens that are there before, by default 0")->check(count);
  verb->add_option("-r,--repeat", arguments->repeats, "Measurements after one to warm up, by default 5")->check(some);
  add_device_options(*verb, arguments->device);
  verb->footer("Example:  freeport profile model.port -d 2048");
  verb->callback([arguments, &action] {
    action = [arguments] {
      const Status status = Profile(*arguments)();
      return status.ok() ? 0 : fail(status);
    };
  });
}

} // namespace freeport::cli
