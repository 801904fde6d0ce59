// `freeport run`: continues a prompt, and shows the text as it grows.
#include "runtime/cli/progress.h"
#include "runtime/cli/trace_file.h"
#include "runtime/cli/verbs.h"
#include "runtime/sampler.h"
#include "runtime/session.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <unistd.h>

namespace freeport::cli {
namespace {

using Clock = std::chrono::steady_clock;

struct RunArguments {
  std::string model, prompt, profile;
  DeviceArguments device;
  int64_t tokens = -1, context = 0;
  Sampling sampling;
  bool has_prompt = false, ignore_end = false, json = false;
  // Whether the command line says so; else the package's defaults hold.
  CLI::Option *temperature = nullptr, *top_k = nullptr, *top_p = nullptr;
};

/// Prompt tokens of one step: Ctrl-C is heard between steps.
constexpr int64_t kChunk = 128;

struct Generated {
  std::vector<int32_t> prompt, ids;
  std::string text;
  const char *stopped = "length"; ///< why: "end", "length", "context" or "interrupted"
  double prompt_seconds = 0, generation_seconds = 0;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double rate(size_t tokens, double seconds) { return seconds > 0 ? double(tokens) / seconds : 0; }

/// The options of the command line, and those of generation_config.json for the rest: greedy unless it samples.
Sampling sampling_of(const RunArguments &arguments, const package::Generation &defaults) {
  Sampling sampling = arguments.sampling;
  if (arguments.temperature->empty())
    sampling.temperature = defaults.sampled() ? defaults.temperature() : 0;
  if (arguments.top_k->empty() && defaults.sampled())
    sampling.top_k = defaults.top_k();
  if (arguments.top_p->empty() && defaults.sampled())
    sampling.top_p = defaults.top_p();
  return sampling;
}

class Run {
public:
  Run(const RunArguments &arguments) : arguments_(arguments) {}

  Status operator()() {
    DeviceArguments device = arguments_.device;
    device.timings = !arguments_.profile.empty();
    FP_ASSIGN_OR_RETURN(std::shared_ptr<Model> model, open_model(arguments_.model, device));
    FP_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, freeport::open_tokenizer(model->package()));
    FP_ASSIGN_OR_RETURN(Sampler sampler,
                        Sampler::create(sampling_of(arguments_, *model->package().manifest().generation())));
    SessionOptions options;
    options.context = arguments_.context;
    std::unique_ptr<TraceFile> trace;
    if (!arguments_.profile.empty()) {
      FP_ASSIGN_OR_RETURN(trace, TraceFile::create(arguments_.profile, model->package().manifest()));
      options.observe = [&](const StepTimes &step) { trace->add(step); };
    }
    FP_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, Session::create(model, options));
    FP_ASSIGN_OR_RETURN(const std::string prompt, read_prompt());
    FP_ASSIGN_OR_RETURN(result_.prompt, tokenizer->encode(prompt, {.add_special_tokens = true}));
    if (result_.prompt.empty())
      return Status(Code::kInvalidArgument, "expects a prompt of at least one token, got an empty text (-p TEXT)");
    FP_ASSIGN_OR_RETURN(const int32_t sequence, session->add());
    FP_RETURN_IF_ERROR(feed_prompt(*session, sequence));
    FP_RETURN_IF_ERROR(generate(*session, sequence, *tokenizer, sampler));
    FP_RETURN_IF_ERROR(report());
    return trace ? trace->finish() : Status();
  }

private:
  Result<std::string> read_prompt() const {
    if (arguments_.has_prompt)
      return arguments_.prompt;
    if (::isatty(STDIN_FILENO))
      fmt::print(stderr, "Type the prompt, then Ctrl-D (or give it with -p).\n");
    return read_standard_input();
  }

  Status feed_prompt(Session &session, int32_t sequence) {
    ProgressLine line;
    const auto start = Clock::now();
    auto show = [](void *context, size_t done, size_t total) {
      static_cast<ProgressLine *>(context)->show(fmt::format("reading the prompt: {} of {} tokens", done, total));
      return !interrupted;
    };
    FP_RETURN_IF_ERROR(
        session.feed(sequence, result_.prompt, std::min(kChunk, session.step_tokens()), /*logits=*/true, show, &line));
    result_.prompt_seconds = seconds_since(start);
    return Status();
  }

  Status generate(Session &session, int32_t sequence, const Tokenizer &tokenizer, Sampler &sampler) {
    Detokenizer detokenizer(tokenizer, /*skip_special_tokens=*/!arguments_.ignore_end);
    const auto start = Clock::now();
    while (arguments_.tokens < 0 || int64_t(result_.ids.size()) < arguments_.tokens) {
      if (interrupted) {
        result_.stopped = "interrupted";
        break;
      }
      FP_ASSIGN_OR_RETURN(const int64_t length, session.length(sequence));
      const int32_t token = sampler.choose(session.logits(0), uint64_t(length));
      if (!arguments_.ignore_end && session.model().package().is_end_token(token)) {
        result_.stopped = "end";
        break;
      }
      result_.ids.push_back(token);
      FP_ASSIGN_OR_RETURN(const std::string piece, detokenizer.push(token));
      FP_RETURN_IF_ERROR(show(piece));
      if (int64_t(result_.ids.size()) == arguments_.tokens)
        break;
      if (length == session.context()) {
        result_.stopped = "context";
        break;
      }
      const Row row = {token, sequence, true};
      FP_RETURN_IF_ERROR(session.step({&row, 1}));
    }
    result_.generation_seconds = seconds_since(start);
    return show(detokenizer.finish());
  }

  /// Keeps a piece of text, and prints it at once unless the result is JSON.
  Status show(const std::string &piece) {
    result_.text += piece;
    if (arguments_.json || piece.empty())
      return Status();
    return print(piece);
  }

  static Status print(const std::string &text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
      return Status(Code::kIo, fmt::format("cannot write to standard output: {}", std::strerror(errno)));
    return Status();
  }

  Status report() const {
    if (arguments_.json) {
      const nlohmann::json result = {
          {"prompt_ids", result_.prompt},
          {"ids", result_.ids},
          {"text", result_.text},
          {"stopped", result_.stopped},
          {"prompt_tokens_per_second", rate(result_.prompt.size(), result_.prompt_seconds)},
          {"generation_tokens_per_second", rate(result_.ids.size(), result_.generation_seconds)}};
      return print(result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    }
    if (result_.text.empty() || result_.text.back() != '\n')
      FP_RETURN_IF_ERROR(print("\n"));
    fmt::print(stderr, "prompt {} tokens, {:.1f} tokens/s; generation {} tokens, {:.1f} tokens/s; stopped by {}\n",
               result_.prompt.size(), rate(result_.prompt.size(), result_.prompt_seconds), result_.ids.size(),
               rate(result_.ids.size(), result_.generation_seconds), reason());
    return Status();
  }

  std::string_view reason() const {
    const std::string_view stopped = result_.stopped;
    return stopped == "end"        ? "an end token"
           : stopped == "context"  ? "the end of the context (-c)"
           : stopped == "length"   ? "the number of tokens (-n)"
           : interrupted == SIGINT ? "Ctrl-C"
                                   : "a signal";
  }

  const RunArguments &arguments_;
  Generated result_;
};

} // namespace

void add_run(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("run", "Continue a prompt");
  auto arguments = std::make_shared<RunArguments>();
  verb->add_option("model", arguments->model, "A package (freeport compile)")->required();
  CLI::Option *prompt = verb->add_option("-p,--prompt", arguments->prompt, "The prompt; standard input if absent");
  verb->add_option("-n,--tokens", arguments->tokens,
                   "Tokens to generate at most; -1: until the model ends its text or the context is full")
      ->check(CLI::Range(int64_t(-1), int64_t(1) << 40))
      ->capture_default_str();
  arguments->temperature =
      verb->add_option("--temp", arguments->sampling.temperature, "Temperature; 0 takes the likeliest token")
          ->default_str("as generation_config.json says");
  arguments->top_k = verb->add_option("--top-k", arguments->sampling.top_k, "Choose among the k likeliest; 0: all")
                         ->default_str("as generation_config.json says");
  arguments->top_p = verb->add_option("--top-p", arguments->sampling.top_p,
                                      "Choose among the likeliest that have probability p together")
                         ->default_str("as generation_config.json says");
  verb->add_option("--min-p", arguments->sampling.min_p,
                   "Choose among those at least p times as likely as the likeliest")
      ->capture_default_str();
  verb->add_option("--seed", arguments->sampling.seed, "The same seed gives the same text, on every device")
      ->capture_default_str();
  add_profile_option(*verb, arguments->profile);
  add_device_options(*verb, arguments->device);
  verb->add_option("-c,--context", arguments->context,
                   "Tokens of prompt and text together; without it, the model's maximum up to 8192")
      ->check(CLI::Range(int64_t(1), int64_t(1) << 31));
  verb->add_flag("--ignore-eos", arguments->ignore_end, "Go on behind end tokens, which then stand in the text");
  verb->add_flag("--json", arguments->json, "Print one JSON object with ids, text and speed instead of the text");
  verb->footer("Example:  freeport run model.port -p \"It is a truth\" -n 64 --temp 0");
  verb->callback([arguments, prompt, &action] {
    arguments->has_prompt = prompt->count() > 0;
    action = [arguments] {
      const Status status = Run(*arguments)();
      return status.ok() ? exit_code(0) : fail(status);
    };
  });
}

} // namespace freeport::cli
