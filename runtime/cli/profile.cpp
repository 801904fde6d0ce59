// `freeport profile`: where the time of a step goes, operation by operation, beside what the machine can do. Dispatches
// run one after the other with the time taken around each, which costs a microsecond that a step does not have.
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"
#include "runtime/cli/work.h"
#include "runtime/machine.h"
#include "runtime/step_trace.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>

namespace freeport::cli {
namespace {

struct ProfileArguments {
  std::string model, trace;
  DeviceArguments device;
  int64_t prompt = 512, depth = 0, repeats = 5;
};

using Clock = std::chrono::steady_clock;

/// One dispatch of one step: what it is and its time in each repeat.
struct Timed {
  std::string operation, kernel;
  Work work;
  std::vector<double> microseconds;

  double median() const {
    std::vector<double> sorted = microseconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

class Profile {
public:
  explicit Profile(const ProfileArguments &arguments) : arguments_(arguments) {}

  Status operator()() {
    FP_ASSIGN_OR_RETURN(model_, open_model(arguments_.model, arguments_.device));
    const package::Manifest &manifest = model_->package().manifest();
    SessionOptions options;
    options.context = arguments_.depth + std::max<int64_t>(arguments_.prompt, 1);
    if (options.context > int64_t(manifest.maximum_context()))
      return Status(Code::kOutOfRange, fmt::format("expects a depth and a prompt of at most {} tokens together, the "
                                                   "model's context, got {}",
                                                   manifest.maximum_context(), options.context));
    FP_ASSIGN_OR_RETURN(session_, Session::create(model_, options));
    FP_ASSIGN_OR_RETURN(sequence_, session_->add());
    progress_.show("measuring the machine", /*always=*/true);
    FP_ASSIGN_OR_RETURN(bandwidth_, measure_read_bandwidth());
    peak_ = measure_multiply_add_peak() * std::max(1, model_->description().threads);
    FP_RETURN_IF_ERROR(reach_depth());
    FP_ASSIGN_OR_RETURN(const std::vector<Timed> generation, measure(1));
    std::vector<Timed> prompt;
    const int64_t tokens = std::min(arguments_.prompt, session_->step_tokens());
    if (tokens > 1) {
      FP_ASSIGN_OR_RETURN(prompt, measure(tokens));
    }
    progress_.clear();
    report("one token", generation);
    if (!prompt.empty())
      report(fmt::format("{} tokens", tokens), prompt);
    fmt::print("{}, {} of {}; memory reads {:.1f} GB/s, all cores do {:.1f} GMAC/s in floats\n", arguments_.model,
               model_->target(), model_->api().name, bandwidth_, peak_);
    return arguments_.trace.empty() ? Status() : write_trace(generation, prompt);
  }

private:
  int32_t token(int64_t place) const {
    return int32_t((place * 2654435761 + 12345) % (1LL << 31) %
                   int64_t(model_->package().manifest().vocabulary_size()));
  }

  Status reach_depth() {
    std::vector<int32_t> tokens;
    for (int64_t place = 0; place < arguments_.depth; ++place)
      tokens.push_back(token(place));
    auto go_on = [](void *, size_t, size_t) { return !interrupted; };
    return tokens.empty() ? Status() : session_->feed(sequence_, tokens, 0, /*logits=*/false, go_on, nullptr);
  }

  /// A step of `tokens` tokens, once to warm up and then as often as asked for, each time from the same state.
  Result<std::vector<Timed>> measure(int64_t tokens) {
    std::vector<Timed> timed;
    const std::vector<Work> work = dispatch_work(model_->package().manifest(), tokens, 1);
    for (int64_t repeat = 0; repeat <= arguments_.repeats; ++repeat) {
      progress_.show(fmt::format("step of {}: {} of {}", tokens, repeat, arguments_.repeats), /*always=*/true);
      std::vector<Row> rows;
      for (int64_t place = 0; place < tokens; ++place)
        rows.push_back({token(arguments_.depth + place), sequence_, place == tokens - 1});
      StepTrace trace(*session_);
      FP_RETURN_IF_ERROR(trace.begin(rows));
      Status status;
      for (size_t number = 0; number < trace.size() && status.ok(); ++number) {
        if (interrupted)
          status = Status(Code::kCancelled, "interrupted");
        if (repeat == 0)
          timed.push_back({std::string(trace.operation(number)),
                           std::string(trace.kernel(number)),
                           number < work.size() ? work[number] : Work(),
                           {}});
        const Clock::time_point start = Clock::now();
        if (status.ok())
          status = trace.run(number);
        if (repeat > 0)
          timed[number].microseconds.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
      }
      FP_RETURN_IF_ERROR(trace.end(status));
      FP_RETURN_IF_ERROR(session_->rewind(sequence_, arguments_.depth));
    }
    return timed;
  }

  void report(const std::string &step, const std::vector<Timed> &dispatches) const {
    struct Row {
      int64_t count = 0;
      double microseconds = 0;
      Work work;
    };
    std::map<std::string, Row> operations;
    double total = 0;
    for (const Timed &each : dispatches) {
      Row &row = operations[each.operation.empty() ? each.kernel : each.operation];
      ++row.count;
      row.microseconds += each.median();
      row.work.bytes += each.work.bytes, row.work.multiply_adds += each.work.multiply_adds;
      total += each.median();
    }
    std::vector<std::pair<std::string, Row>> sorted(operations.begin(), operations.end());
    std::sort(sorted.begin(), sorted.end(),
              [](const auto &a, const auto &b) { return a.second.microseconds > b.second.microseconds; });
    fmt::print("{}: {} dispatches, {:.2f} ms\n\n", step, dispatches.size(), total / 1e3);
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

  /// Chrome's trace event format, which Perfetto reads: one event for each dispatch at its median.
  Status write_trace(const std::vector<Timed> &generation, const std::vector<Timed> &prompt) const {
    nlohmann::json events = nlohmann::json::array();
    double now = 0;
    for (const auto *step : {&generation, &prompt})
      for (const Timed &each : *step) {
        events.push_back(
            {{"name", each.operation.empty() ? each.kernel : each.operation},
             {"cat", step == &generation ? "generation" : "prompt"},
             {"ph", "X"},
             {"ts", now},
             {"dur", each.median()},
             {"pid", 1},
             {"tid", 1},
             {"args",
              {{"kernel", each.kernel}, {"bytes", each.work.bytes}, {"multiply_adds", each.work.multiply_adds}}}});
        now += each.median();
      }
    const std::string text = nlohmann::json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}}.dump();
    std::FILE *file = std::fopen(arguments_.trace.c_str(), "wb");
    if (!file)
      return Status(Code::kInvalidArgument, arguments_.trace + ": cannot be written");
    const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
    if (std::fclose(file) != 0 || !written)
      return Status(Code::kInvalidArgument, arguments_.trace + ": cannot be written whole; is the disk full?");
    return Status();
  }

  const ProfileArguments &arguments_;
  std::shared_ptr<Model> model_;
  std::unique_ptr<Session> session_;
  int32_t sequence_ = 0;
  double bandwidth_ = 0, peak_ = 0;
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
  verb->add_option("--trace", arguments->trace,
                   "Also write the dispatches to this file for Chrome's or Perfetto's viewer");
  add_device_options(*verb, arguments->device);
  verb->footer("Example:  freeport profile model.port --trace trace.json");
  verb->callback([arguments, &action] {
    action = [arguments] {
      const Status status = Profile(*arguments)();
      return status.ok() ? 0 : fail(status);
    };
  });
}

} // namespace freeport::cli
