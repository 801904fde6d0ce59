// `freeport tune`: the package's kernels with other tile sizes and prefetch distances, measured on this machine; the
// fastest are written. Bits stay (docs/decisions/0013-tuning.md).
#include "runtime/cli/compiler_library.h"
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"
#include "runtime/cli/work.h"
#include "runtime/compiler_api.h"
#include "runtime/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

namespace freeport::cli {
namespace {

struct TuneArguments {
  std::string model, output;
  int threads = 0;
};

constexpr double kLeastGain = 1.02;   ///< of the median, for another value to be taken
constexpr int kRounds = 5;            ///< of both in turn
constexpr double kRoundSeconds = 0.1; ///< at least, of one
constexpr int64_t kLeastShortSteps = 4;

/// The C interface of the compiler, with errors as Status.
class Relowering {
public:
  ~Relowering() { end(); }

  Status load() {
    FP_RETURN_IF_ERROR(find("fp_relower_begin", begin_));
    FP_RETURN_IF_ERROR(find("fp_relower_try", try_));
    FP_RETURN_IF_ERROR(find("fp_relower_finish", finish_));
    return find("fp_relower_end", end_);
  }
  Status begin(const Package &package, const std::string &output, ProgressLine &line, fp_schedule &own) {
    const fp_relower_options options = {package.bytes().data(), package.weights().second, output.c_str(),
                                        show_compiler_progress, &line};
    handle_ = begin_(&options, &own, &error_);
    return handle_ ? Status() : device_status(error_);
  }
  Result<std::string> add(const fp_schedule &schedule, const std::string &target) {
    const char *path = try_(handle_, &schedule, "cpu", target.c_str(), &error_);
    if (!path)
      return device_status(error_);
    return std::string(path);
  }
  Status finish(const fp_schedule &schedule, const std::string &note) {
    return finish_(handle_, &schedule, note.c_str(), &error_) ? device_status(error_) : Status();
  }
  /// Removes the temporary file.
  void end() {
    if (handle_)
      end_(std::exchange(handle_, nullptr));
  }

private:
  template <typename Function> static Status find(const char *name, Function &function) {
    FP_ASSIGN_OR_RETURN(void *found, find_compiler_function(name));
    function = reinterpret_cast<Function>(found);
    return Status();
  }

  fp_relower_begin_function begin_ = nullptr;
  fp_relower_try_function try_ = nullptr;
  fp_relower_finish_function finish_ = nullptr;
  fp_relower_end_function end_ = nullptr;
  fp_relowering *handle_ = nullptr;
  fp_error error_ = {};
};

/// What is tuned, and the steps that it is measured with.
struct Dimension {
  const char *name;
  int64_t fp_schedule::*field;
  int64_t step_tokens, fewest; ///< fewest: of a step that runs the kernels in question
  std::vector<int64_t> values;
};

std::string text_of(const Dimension &dimension, int64_t value) {
  if (dimension.field != &fp_schedule::prefetch_distance)
    return fmt::format("{}", value);
  return value == 0 ? "by processor" : value < 0 ? "none" : fmt::format("{}", value);
}

/// A schedule's kernels, ready to be measured.
struct Candidate {
  fp_schedule schedule = {};
  std::shared_ptr<Model> model = nullptr;
  std::unique_ptr<Session> session = nullptr;
  int32_t sequence = 0;

  /// `count` steps of `tokens` tokens, of a sequence that is empty before; seconds.
  Result<double> run(int64_t tokens, int64_t count) {
    FP_RETURN_IF_ERROR(session->rewind(sequence, 0));
    std::vector<Row> rows;
    const auto start = std::chrono::steady_clock::now();
    for (int64_t step = 0; step < count; ++step) {
      if (interrupted)
        return Status(Code::kCancelled, "interrupted");
      if ((step + 1) * tokens > session->context())
        FP_RETURN_IF_ERROR(session->rewind(sequence, 0));
      rows.clear();
      for (int64_t i = 0; i < tokens; ++i)
        rows.push_back({measured_token(model->package().manifest(), step * tokens + i), sequence, i + 1 == tokens});
      FP_RETURN_IF_ERROR(session->step(rows));
    }
    return std::max(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 1e-9);
  }
};

class Tune {
public:
  explicit Tune(const TuneArguments &arguments) : arguments_(arguments) {}

  Status operator()() {
    FP_ASSIGN_OR_RETURN(const std::shared_ptr<const Package> package, Package::open(arguments_.model));
    const auto &executables = *package->manifest().executables();
    if (std::none_of(executables.begin(), executables.end(),
                     [](const auto *each) { return each->backend()->string_view() == "cpu"; }))
      return Status(Code::kUnsupported, fmt::format("{}: expects a package with code for cpu, which is what is tuned, "
                                                    "got none; compile the checkpoint with --target cpu",
                                                    arguments_.model));
    std::string target, processor;
    {
      FP_ASSIGN_OR_RETURN(const std::shared_ptr<Model> model, open(package));
      target = model->target(), processor = model->description().name;
    }
    // A link to a package stays one.
    std::error_code code;
    const std::string output =
        !arguments_.output.empty() ? arguments_.output : std::filesystem::canonical(arguments_.model, code).string();
    FP_RETURN_IF_ERROR(relowering_.load());
    Candidate present;
    FP_RETURN_IF_ERROR(relowering_.begin(*package, output, line_, present.schedule));
    FP_RETURN_IF_ERROR(prepare(present, target));
    const int64_t most = std::min(present.session->step_tokens(), present.session->context());
    std::vector<Dimension> dimensions = {
        {"tokens per tile, steps of 2 to 31", &fp_schedule::few_tokens_per_tile, 8, 2, {2, 4, 8}},
        {"tokens per tile, longer steps", &fp_schedule::many_tokens_per_tile, 256, 32, {8, 16, 32}},
        {"prefetch distance in bytes", &fp_schedule::prefetch_distance, 1, 1, {-1, 0, 2304, 4608, 9216}}};
    for (const Dimension &dimension : dimensions)
      if (const int64_t tokens = std::min(dimension.step_tokens, most); tokens >= dimension.fewest)
        FP_RETURN_IF_ERROR(choose(dimension, tokens, target, present));
    const fp_schedule best = present.schedule;
    present = {}; // its file is written anew
    const std::string note =
        fmt::format(" --tune tokens {},{} prefetch {} on \"{}\"", best.few_tokens_per_tile, best.many_tokens_per_tile,
                    text_of(dimensions[2], best.prefetch_distance), processor);
    FP_RETURN_IF_ERROR(relowering_.finish(best, note));
    line_.clear();
    fmt::print("| what | value | tokens/s | gain | |\n|---|---:|---:|---:|---|\n{}\n{}: tuned for {} "
               "({})\n",
               table_, output, processor, target);
    return Status();
  }

private:
  Result<std::shared_ptr<Model>> open(std::shared_ptr<const Package> package) const {
    ModelOptions options;
    options.device = "cpu";
    options.threads = arguments_.threads;
    return Model::open(std::move(package), options);
  }

  Status prepare(Candidate &candidate, const std::string &target) {
    FP_ASSIGN_OR_RETURN(const std::string path, relowering_.add(candidate.schedule, target));
    FP_ASSIGN_OR_RETURN(std::shared_ptr<const Package> package, Package::open(path));
    FP_ASSIGN_OR_RETURN(candidate.model, open(std::move(package)));
    SessionOptions options;
    options.context = std::min<int64_t>(512, int64_t(candidate.model->package().manifest().maximum_context()));
    FP_ASSIGN_OR_RETURN(candidate.session, Session::create(candidate.model, options));
    FP_ASSIGN_OR_RETURN(candidate.sequence, candidate.session->add());
    return Status();
  }

  /// Measures every value against the present one, which the faster replaces.
  Status choose(const Dimension &dimension, int64_t tokens, const std::string &target, Candidate &present) {
    const int64_t first = present.schedule.*dimension.field;
    for (int64_t value : dimension.values) {
      if (value == first)
        continue;
      Candidate other{present.schedule};
      other.schedule.*dimension.field = value;
      FP_RETURN_IF_ERROR(prepare(other, target));
      FP_ASSIGN_OR_RETURN(const double warm, other.run(tokens, 1));
      FP_RETURN_IF_ERROR(present.run(tokens, 1).status());
      const int64_t count =
          std::clamp<int64_t>(int64_t(kRoundSeconds / warm), tokens < 32 ? kLeastShortSteps : 1, 1000);
      std::vector<double> gains, before, after;
      for (int round = 0; round < kRounds; ++round) {
        line_.show(fmt::format("{} {}: {} of {}", dimension.name, text_of(dimension, value), round + 1, kRounds), true);
        FP_ASSIGN_OR_RETURN(const double a, present.run(tokens, count));
        FP_ASSIGN_OR_RETURN(const double b, other.run(tokens, count));
        before.push_back(a), after.push_back(b), gains.push_back(a / b);
      }
      const double gain = median(gains), steps = double(count * tokens);
      const bool taken = gain > kLeastGain;
      table_ += fmt::format("| {} | {} instead of {} | {:.1f} instead of {:.1f} | {:+.1f} % | {} |\n", dimension.name,
                            text_of(dimension, value), text_of(dimension, present.schedule.*dimension.field),
                            steps / median(after), steps / median(before), 100 * (gain - 1), taken ? "taken" : "");
      if (taken)
        present = std::move(other);
    }
    return Status();
  }

  const TuneArguments &arguments_;
  ProgressLine line_;
  Relowering relowering_;
  std::string table_;
};

} // namespace

void add_tune(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand(
      "tune", "Measure tile sizes and prefetching on this machine's CPU, and write the package with the fastest");
  auto arguments = std::make_shared<TuneArguments>();
  verb->add_option("model", arguments->model, "A package (freeport compile)")->required();
  verb->add_option("-o,--output", arguments->output, "The package to write; without it, MODEL is replaced");
  verb->add_option("-t,--threads", arguments->threads, "Threads; without it, one for each physical core")
      ->check(CLI::Range(1, 1024));
  verb->footer("The package keeps its weights and its bits, and has code for the same devices.\n"
               "Example:  freeport tune model.port");
  verb->callback([arguments, &action] {
    action = [arguments] {
      const Status status = Tune(*arguments)();
      return status.ok() ? 0 : fail(status);
    };
  });
}

} // namespace freeport::cli
