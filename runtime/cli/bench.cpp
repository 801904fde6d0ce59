// `freeport bench`: how fast a model reads prompts and generates, beside what the machine's memory and cores can do in
// the same minute.
#include "runtime/cli/progress.h"
#include "runtime/cli/trace_file.h"
#include "runtime/cli/verbs.h"
#include "runtime/cli/work.h"
#include "runtime/machine.h"
#include "runtime/session.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cmath>

namespace freeport::cli {
namespace {

struct BenchArguments {
  std::string model, profile, output = "md";
  DeviceArguments device;
  int64_t prompt = 512, generate = 128, repeats = 5, depth = 0, sequences = 1;
};

struct Figures {
  std::string test;
  int64_t depth = 0, sequences = 1;
  Work work = {}; ///< of one repeat
  double tokens = 0;
  std::vector<double> seconds = {};

  double mean() const {
    double sum = 0;
    for (double each : seconds)
      sum += tokens / each;
    return sum / double(seconds.size());
  }
  double deviation() const {
    double sum = 0;
    for (double each : seconds)
      sum += std::pow(tokens / each - mean(), 2);
    return seconds.size() > 1 ? std::sqrt(sum / double(seconds.size() - 1)) : 0;
  }
};

class Bench {
public:
  explicit Bench(const BenchArguments &arguments) : arguments_(arguments) {}

  Status operator()() {
    DeviceArguments device = arguments_.device;
    device.timings = !arguments_.profile.empty();
    FP_ASSIGN_OR_RETURN(model_, open_model(arguments_.model, device));
    const package::Manifest &manifest = model_->package().manifest();
    const int64_t context = arguments_.depth + std::max(arguments_.prompt, arguments_.generate);
    if (context > int64_t(manifest.maximum_context()))
      return Status(Code::kOutOfRange,
                    fmt::format("expects a depth and a prompt or generation of at most {} tokens together, the model's "
                                "context, got {}",
                                manifest.maximum_context(), context));
    SessionOptions options;
    options.context = context;
    options.sequences = options.logit_rows = arguments_.sequences;
    std::unique_ptr<TraceFile> trace;
    if (!arguments_.profile.empty()) {
      FP_ASSIGN_OR_RETURN(trace, TraceFile::create(arguments_.profile, manifest));
      options.observe = [&](const StepTimes &step) { trace->add(step); };
    }
    FP_ASSIGN_OR_RETURN(session_, Session::create(model_, options));
    for (int64_t i = 0; i < arguments_.sequences; ++i) {
      FP_ASSIGN_OR_RETURN(const int32_t sequence, session_->add());
      sequences_.push_back(sequence);
    }
    progress_.show("measuring the machine", /*always=*/true);
    FP_ASSIGN_OR_RETURN(bandwidth_, measure_read_bandwidth());
    peak_ = measure_multiply_add_peak();
    std::vector<Figures> figures;
    if (arguments_.prompt) {
      FP_ASSIGN_OR_RETURN(figures.emplace_back(), measure_prompt());
    }
    if (arguments_.generate) {
      FP_ASSIGN_OR_RETURN(figures.emplace_back(), measure_generation());
    }
    progress_.show("measuring the machine again", /*always=*/true);
    FP_ASSIGN_OR_RETURN(const double after, measure_read_bandwidth());
    bandwidth_ = std::max(bandwidth_, after);
    peak_ = std::max(peak_, measure_multiply_add_peak());
    progress_.clear();
    report(figures);
    return trace ? trace->finish() : Status();
  }

private:
  int32_t token(int64_t place) const { return measured_token(model_->package().manifest(), place); }

  Status feed(int32_t sequence, int64_t first, int64_t count, bool logits) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < count; ++i)
      tokens.push_back(token(first + i));
    auto go_on = [](void *, size_t, size_t) { return !interrupted; };
    return session_->feed(sequence, tokens, 0, logits, go_on, nullptr);
  }

  /// Every sequence `depth` tokens long.
  Status fill() {
    for (int32_t sequence : sequences_) {
      FP_ASSIGN_OR_RETURN(const int64_t length, session_->length(sequence));
      if (length > arguments_.depth)
        FP_RETURN_IF_ERROR(session_->rewind(sequence, arguments_.depth));
      else if (length < arguments_.depth)
        FP_RETURN_IF_ERROR(feed(sequence, 0, arguments_.depth, /*logits=*/false));
    }
    return Status();
  }

  /// `work` once to warm up, then as often as asked for, each time from the same state.
  Result<Figures> repeat(Figures figures, std::function<Status()> work) {
    for (int64_t number = 0; number <= arguments_.repeats; ++number) {
      progress_.show(fmt::format("{}: {} of {}", figures.test, number, arguments_.repeats), /*always=*/true);
      FP_RETURN_IF_ERROR(fill());
      const auto start = std::chrono::steady_clock::now();
      FP_RETURN_IF_ERROR(work());
      const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
      if (interrupted)
        return Status(Code::kCancelled, "interrupted");
      if (number)
        figures.seconds.push_back(std::max(passed.count(), 1e-9));
    }
    return figures;
  }

  Result<Figures> measure_prompt() {
    Figures figures{fmt::format("pp{}", arguments_.prompt), arguments_.depth, 1};
    figures.tokens = double(arguments_.prompt);
    for (int64_t left = arguments_.prompt; left > 0; left -= session_->step_tokens()) {
      const Work step = step_work(model_->package().manifest(), std::min(left, session_->step_tokens()),
                                  left <= session_->step_tokens());
      figures.work.bytes += step.bytes, figures.work.multiply_adds += step.multiply_adds;
    }
    return repeat(figures, [&] { return feed(sequences_[0], arguments_.depth, arguments_.prompt, /*logits=*/true); });
  }

  Result<Figures> measure_generation() {
    Figures figures{fmt::format("tg{}", arguments_.generate), arguments_.depth, arguments_.sequences};
    figures.tokens = double(arguments_.generate * arguments_.sequences);
    figures.work = step_work(model_->package().manifest(), arguments_.sequences, arguments_.sequences);
    figures.work.bytes *= double(arguments_.generate), figures.work.multiply_adds *= double(arguments_.generate);
    return repeat(figures, [&]() -> Status {
      std::vector<Row> rows;
      for (int64_t i = 0; i < arguments_.generate && !interrupted; ++i) {
        rows.clear();
        for (int32_t sequence : sequences_)
          rows.push_back({token(arguments_.depth + i * arguments_.sequences + sequence), sequence, true});
        FP_RETURN_IF_ERROR(session_->step(rows));
      }
      return Status();
    });
  }

  void report(const std::vector<Figures> &all) const {
    const double threads = std::max(1, model_->description().threads);
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const Figures &each : all) {
      const double seconds = each.tokens / each.mean(), bytes = each.work.bytes / seconds / 1e9;
      const double operations = 2 * each.work.multiply_adds / seconds / threads / 1e9;
      list.push_back({{"test", each.test},
                      {"tokens_per_second", each.mean()},
                      {"stddev", each.deviation()},
                      {"gigabytes_per_second", bytes},
                      {"bandwidth_share", bytes / bandwidth_},
                      {"gops_per_core", operations},
                      {"peak_share", operations / 2 / peak_},
                      {"depth", each.depth},
                      {"sequences", each.sequences}});
    }
    if (arguments_.output == "json") {
      fmt::print("{}\n", list.dump(2));
      return;
    }
    const bool table = arguments_.output == "md";
    const char *between = table ? " | " : ",", *begin = table ? "| " : "", *end = table ? " |\n" : "\n";
    std::string names, rule;
    for (const auto &[key, value] : list[0].items()) {
      names += (names.empty() ? begin : between) + key;
      rule += value.is_string() ? "|---" : "|---:";
    }
    fmt::print("{}{}{}", names, end, table ? rule + "|\n" : "");
    for (const auto &each : list) {
      std::string line;
      for (const auto &[key, value] : each.items())
        line += (line.empty() ? begin : between) + (value.is_string() ? value.template get<std::string>()
                                                    : value.is_number_integer()
                                                        ? fmt::format("{}", value.template get<int64_t>())
                                                        : fmt::format("{:.3f}", value.template get<double>()));
      fmt::print("{}{}", line, end);
    }
    if (table)
      fmt::print("\n{}, {} of {} with {:.0f} threads; memory reads {:.1f} GB/s, a core does {:.1f} GMAC/s\n",
                 arguments_.model, model_->target(), model_->api().name, threads, bandwidth_, peak_);
  }

  const BenchArguments &arguments_;
  std::shared_ptr<Model> model_;
  std::unique_ptr<Session> session_;
  std::vector<int32_t> sequences_;
  double bandwidth_ = 0, peak_ = 0;
  ProgressLine progress_;
};

} // namespace

void add_bench(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("bench", "How fast a model reads prompts (pp) and generates (tg)");
  auto arguments = std::make_shared<BenchArguments>();
  verb->add_option("model", arguments->model, "A package (freeport compile)")->required();
  const CLI::Range count(0, 1 << 24), some(1, 1 << 16);
  verb->add_option("-p,--prompt", arguments->prompt, "Tokens of the prompt, by default 512; 0: none")->check(count);
  verb->add_option("-n,--generate", arguments->generate, "Tokens to generate, by default 128; 0: none")->check(count);
  verb->add_option("-r,--repeat", arguments->repeats, "Measurements after one to warm up, by default 5")->check(some);
  verb->add_option("-d,--depth", arguments->depth, "Tokens that are there before, by default 0")->check(count);
  verb->add_option("-b,--sequences", arguments->sequences, "Sequences that generate together, by default 1")
      ->check(some);
  verb->add_option("-o,--output", arguments->output, "md (a table), csv or json")
      ->check(CLI::IsMember({"md", "csv", "json"}));
  add_profile_option(*verb, arguments->profile);
  add_device_options(*verb, arguments->device);
  verb->footer(
      "Bytes are those of weights that a step must read once, operations those of its linear maps; shares are of "
      "what this\nmachine's memory and cores did in the same run.\n"
      "Example:  freeport bench model.port -p 512 -n 128");
  verb->callback([arguments, &action] {
    if (!arguments->prompt && !arguments->generate)
      throw CLI::ValidationError("expects a prompt or a generation to measure, got -p 0 and -n 0");
    action = [arguments] {
      const Status status = Bench(*arguments)();
      return status.ok() ? 0 : fail(status);
    };
  });
}

} // namespace freeport::cli
