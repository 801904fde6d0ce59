// `freeport verify`: the same prompt on several devices, logits compared bit for bit; where they differ, the first
// dispatch whose memory differs.
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"
#include "runtime/registry.h"
#include "runtime/step_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace freeport::cli {
namespace {

struct VerifyArguments {
  std::string model, prompt = "It is a truth universally acknowledged, that bits are bits.", ids, devices;
  int threads = 0;
};

/// One way of cutting the prompt into steps.
struct Way {
  const char *name;
  size_t chunk; ///< 0: all at once
};
constexpr Way kWays[] = {{"whole prompt", 0}, {"token by token", 1}};

struct Candidate {
  std::string name;
  std::shared_ptr<Model> model;
};

Result<std::unique_ptr<Session>> session_for(const std::shared_ptr<Model> &model, size_t tokens) {
  SessionOptions options;
  options.context = options.step_tokens = options.logit_rows = int64_t(tokens);
  return Session::create(model, options);
}

std::vector<std::vector<Row>> steps_of(std::span<const int32_t> ids, const Way &way, int32_t sequence) {
  std::vector<std::vector<Row>> steps;
  const size_t chunk = way.chunk ? way.chunk : ids.size();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i % chunk == 0)
      steps.emplace_back();
    steps.back().push_back({ids[i], sequence, true});
  }
  return steps;
}

/// The logits behind every token.
Result<std::vector<float>> logits_of(const std::shared_ptr<Model> &model, std::span<const int32_t> ids,
                                     const Way &way) {
  FP_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, session_for(model, ids.size()));
  FP_ASSIGN_OR_RETURN(const int32_t sequence, session->add());
  std::vector<float> all;
  for (const std::vector<Row> &rows : steps_of(ids, way, sequence)) {
    if (interrupted)
      return Status(Code::kCancelled, "interrupted");
    FP_RETURN_IF_ERROR(session->step(rows));
    for (size_t i = 0; i < rows.size(); ++i)
      all.insert(all.end(), session->logits(i).begin(), session->logits(i).end());
  }
  return all;
}

std::string word_text(std::span<const std::byte> bytes, size_t at) {
  uint32_t word = 0;
  std::memcpy(&word, bytes.data() + at, std::min<size_t>(4, bytes.size() - at));
  float number;
  std::memcpy(&number, &word, 4);
  return fmt::format("{:#010x} ({})", word, number);
}

/// Runs the steps on both devices dispatch by dispatch, and tells the first difference in words; empty where there is
/// none.
Result<std::string> first_difference(const Candidate &judge, const Candidate &other, std::span<const int32_t> ids,
                                     const Way &way) {
  FP_ASSIGN_OR_RETURN(std::unique_ptr<Session> left, session_for(judge.model, ids.size()));
  FP_ASSIGN_OR_RETURN(std::unique_ptr<Session> right, session_for(other.model, ids.size()));
  FP_ASSIGN_OR_RETURN(const int32_t sequence, left->add());
  FP_RETURN_IF_ERROR(right->add().status());
  StepTrace expected(*left), found(*right);
  size_t step = 0;
  for (const std::vector<Row> &rows : steps_of(ids, way, sequence)) {
    FP_RETURN_IF_ERROR(expected.begin(rows));
    FP_RETURN_IF_ERROR(found.begin(rows));
    for (size_t number = 0; number < expected.size(); ++number) {
      if (interrupted)
        return Status(Code::kCancelled, "interrupted");
      FP_RETURN_IF_ERROR(expected.run(number));
      FP_RETURN_IF_ERROR(found.run(number));
      for (size_t binding = 0; binding < expected.bindings(number); ++binding) {
        if (expected.is_parameter(number, binding))
          continue;
        FP_ASSIGN_OR_RETURN(const std::vector<std::byte> a, expected.read(number, binding));
        FP_ASSIGN_OR_RETURN(const std::vector<std::byte> b, found.read(number, binding));
        const auto at = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
        if (at.first == a.end() && at.second == b.end())
          continue;
        const size_t element = size_t(at.first - a.begin()) / 4;
        return fmt::format(
            "step {} of {} tokens, dispatch {} of {}: {}, kernel {}, operand {}, word {}: {} on {}, {} on {}", step,
            rows.size(), number, expected.size(), expected.operation(number), expected.kernel(number), binding, element,
            word_text(a, 4 * element), judge.name, word_text(b, 4 * element), other.name);
      }
    }
    FP_RETURN_IF_ERROR(expected.end(Status()));
    FP_RETURN_IF_ERROR(found.end(Status()));
    ++step;
  }
  return std::string();
}

Result<std::vector<int32_t>> prompt_ids(const VerifyArguments &arguments, const Package &package) {
  if (!arguments.ids.empty())
    return parse_ids(arguments.ids);
  auto tokenizer = freeport::open_tokenizer(package);
  if (tokenizer.ok())
    return (*tokenizer)->encode(arguments.prompt, {.add_special_tokens = true});
  std::vector<int32_t> ids; // any tokens will do
  for (uint64_t i = 0; i < 16; ++i)
    ids.push_back(int32_t((1 + i * 7919) % package.manifest().vocabulary_size()));
  return ids;
}

/// The devices that were asked for, all of which must open; or, without --devices, those that open here.
Result<std::vector<Candidate>> open_all(const VerifyArguments &arguments,
                                        const std::shared_ptr<const Package> &package) {
  std::vector<Candidate> candidates;
  std::vector<std::string> names = CLI::detail::split(arguments.devices, ',');
  const bool chosen = !arguments.devices.empty();
  if (!chosen) {
    names.clear();
    for (const fp_device_api *api : device_apis())
      names.push_back(api->name);
  }
  for (const std::string &name : names) {
    auto model = Model::open(package, {.device = name, .threads = arguments.threads});
    if (model.ok())
      candidates.push_back({name, *model});
    else if (chosen)
      return model.status();
    else
      fmt::print(stderr, "note: without {}: {}\n", name, model.status().message());
  }
  if (candidates.size() < 2)
    return Status(Code::kInvalidArgument, fmt::format("expects at least two devices to compare, got {}; compile with "
                                                      "--target cpu or more",
                                                      candidates.size()));
  return candidates;
}

Status verify(const VerifyArguments &arguments, bool &equal) {
  FP_ASSIGN_OR_RETURN(const std::shared_ptr<const Package> package, Package::open(arguments.model));
  if (package->manifest().numerics()->string_view() != "portable")
    return Status(
        Code::kInvalidArgument,
        fmt::format("{}: expects portable numerics, got {}, whose bits differ between devices; freeport compare "
                    "tells how far",
                    arguments.model, package->manifest().numerics()->string_view()));
  FP_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, prompt_ids(arguments, *package));
  FP_ASSIGN_OR_RETURN(const std::vector<Candidate> candidates, open_all(arguments, package));
  fmt::print("{} tokens, {} logits each, bit for bit against {}\n\n", ids.size(), package->manifest().vocabulary_size(),
             candidates[0].name);
  fmt::print("{:<12} {:<22} {:>14} {:>16} {:>10}\n", "device", "target", kWays[0].name, kWays[1].name, "seconds");
  std::vector<float> expected;
  std::vector<std::pair<const Candidate *, const Way *>> wrong;
  for (const Candidate &candidate : candidates) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::string> verdicts;
    for (const Way &way : kWays) {
      ProgressLine line;
      line.show(fmt::format("{}: {}", candidate.name, way.name), /*always=*/true);
      FP_ASSIGN_OR_RETURN(const std::vector<float> logits, logits_of(candidate.model, ids, way));
      if (expected.empty())
        expected = logits;
      const bool same = std::memcmp(logits.data(), expected.data(), expected.size() * sizeof(float)) == 0;
      verdicts.push_back(same ? "equal" : "DIFFERENT");
      if (!same)
        wrong.push_back({&candidate, &way});
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    fmt::print("{:<12} {:<22} {:>14} {:>16} {:>10.2f}\n", candidate.name, candidate.model->target(), verdicts[0],
               verdicts[1], seconds);
  }
  equal = wrong.empty();
  for (const auto &[candidate, way] : wrong) {
    FP_ASSIGN_OR_RETURN(const std::string text, first_difference(candidates[0], *candidate, ids, *way));
    fmt::print("\n{}, {}: {}\n", candidate->name, way->name,
               text.empty() ? "the logits differ, but no dispatch does when it runs alone: a barrier is missing"
                            : text);
  }
  return Status();
}

} // namespace

void add_verify(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("verify", "Compare a prompt's logits on several devices, bit for bit");
  auto arguments = std::make_shared<VerifyArguments>();
  verb->add_option("model", arguments->model, "A package (freeport compile)")->required();
  CLI::Option *prompt = verb->add_option("-p,--prompt", arguments->prompt, "The prompt")->capture_default_str();
  verb->add_option("--ids", arguments->ids, "Token ids instead, separated by commas")->excludes(prompt);
  verb->add_option("--devices", arguments->devices,
                   "Devices, separated by commas, the judge first; without it, all that open here");
  verb->add_option("-t,--threads", arguments->threads, "Threads; without it, one for each processor")
      ->check(CLI::Range(1, 1024));
  verb->footer("Example:  freeport verify model.port --devices reference,cpu,vulkan");
  verb->callback([arguments, &action] {
    action = [arguments] {
      bool equal = false;
      const Status status = verify(*arguments, equal);
      return status.ok() ? (equal ? 0 : 1) : fail(status);
    };
  });
}

} // namespace freeport::cli
