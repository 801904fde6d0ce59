// The `freeport` program: one command line for compiling, running and looking into packages.
#include "runtime/cli/verbs.h"

#include <csignal>
#include <cstdio>
#include <unistd.h>

namespace freeport::cli {

std::atomic<bool> interrupted = false;

int fail(const std::string &message) {
  bool colour = ::isatty(STDERR_FILENO);
  std::fprintf(stderr, "%serror:%s %s\n", colour ? "\033[1;31m" : "", colour ? "\033[0m" : "", message.c_str());
  return interrupted ? 130 : 1;
}

} // namespace freeport::cli

int main(int argc, char **argv) {
  using namespace freeport::cli;
  // The first Ctrl-C asks; the second ends the process.
  // Reads end at once (no SA_RESTART).
  struct sigaction on_interrupt = {};
  on_interrupt.sa_handler = [](int) {
    if (interrupted.exchange(true))
      std::signal(SIGINT, SIG_DFL), std::raise(SIGINT);
  };
  sigaction(SIGINT, &on_interrupt, nullptr);
  // A file-size limit is an error to report, like a full disk, not a reason to die.
  std::signal(SIGXFSZ, SIG_IGN);
  CLI::App app(
      "Freeport compiles a transformer or mixture-of-experts checkpoint into one file, model.port, that gives the "
      "same bits on every device.",
      "freeport");
  app.set_version_flag("--version", "freeport " FREEPORT_VERSION);
  app.require_subcommand(1);
  app.footer("Start with:  freeport compile CHECKPOINT -o model.port");
  Action action;
  add_compile(app, action);
  add_run(app, action);
  add_logits(app, action);
  add_inspect(app, action);
  add_text(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error) ? 2 : 0;
  }
  return action();
}
