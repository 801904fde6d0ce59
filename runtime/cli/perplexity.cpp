// `freeport perplexity`: how well a model predicts a text.
#include "runtime/cli/progress.h"
#include "runtime/cli/windows.h"

#include <fmt/format.h>

#include <cmath>

namespace freeport::cli {
namespace {

struct PerplexityArguments {
  std::string model;
  WindowArguments windows;
  DeviceArguments device;
};

Status measure(const PerplexityArguments &arguments) {
  FP_ASSIGN_OR_RETURN(std::shared_ptr<Model> model, open_model(arguments.model, arguments.device));
  FP_ASSIGN_OR_RETURN(const Windows windows, Windows::read(*model, arguments.windows));
  FP_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, windows.session(model));
  ProgressLine progress;
  double total = 0;
  size_t seen = 0;
  Session *const sessions[] = {session.get()};
  FP_RETURN_IF_ERROR(windows.walk(sessions, [&](std::span<const Row> rows, std::span<const int32_t> next) -> Status {
    FP_RETURN_IF_ERROR(session->step(rows));
    for (size_t i = 0; i < rows.size(); ++i)
      total += log_sum_exp(session->logits(i)) - session->logits(i)[size_t(next[i])];
    seen += rows.size();
    progress.show(fmt::format("{} of {} tokens, perplexity so far {:.4f}", seen, windows.predicted(),
                              std::exp(total / double(seen))));
    return Status();
  }));
  progress.clear();
  fmt::print("{} tokens in {} windows of {}: {:.6f} nats per token, perplexity {:.5f}\n", seen, windows.count(),
             windows.size(), total / double(seen), std::exp(total / double(seen)));
  return Status();
}

} // namespace

void add_perplexity(CLI::App &app, Action &action) {
  CLI::App *verb = app.add_subcommand("perplexity", "How well a model predicts a text; lower is better");
  auto arguments = std::make_shared<PerplexityArguments>();
  verb->add_option("model", arguments->model, "A package (freeport compile)")->required();
  add_window_options(*verb, arguments->windows);
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
