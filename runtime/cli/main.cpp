// The `freeport` program: one command line for compiling, running and looking into packages.
#include "runtime/cli/verbs.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <unistd.h>

namespace freeport::cli {

std::atomic<int> interrupted = 0;

int fail(const std::string &message) {
  bool colour = ::isatty(STDERR_FILENO);
  std::fprintf(stderr, "%serror:%s %s\n", colour ? "\033[1;31m" : "", colour ? "\033[0m" : "", message.c_str());
  return exit_code(1);
}

/// Whether all that was printed has arrived; a full disk shows only when the last buffer is written.
static int flush(int code) {
  if (std::fflush(stdout) == 0 && !std::ferror(stdout))
    return code;
  return code ? code : fail(std::string("cannot write to standard output: ") + std::strerror(errno));
}

} // namespace freeport::cli

int main(int argc, char **argv) {
  using namespace freeport::cli;
  // The first Ctrl-C (or `kill`) asks, so that no partial file stays; the second ends the process.
  // Reads end at once (no SA_RESTART).
  struct sigaction on_interrupt = {};
  on_interrupt.sa_handler = [](int signal) {
    if (interrupted.exchange(signal))
      std::signal(signal, SIG_DFL), std::raise(signal);
  };
  sigaction(SIGINT, &on_interrupt, nullptr);
  sigaction(SIGTERM, &on_interrupt, nullptr);
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
  add_bench(app, action);
  add_perplexity(app, action);
  add_compare(app, action);
  add_profile(app, action);
  add_verify(app, action);
  add_tune(app, action);
  add_inspect(app, action);
  add_devices(app, action);
  add_text(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return flush(app.exit(error) ? 2 : 0);
  }
  try {
    return flush(action());
  } catch (const std::exception &error) { // fmt's, where a write fails before the last
    return fail(error.what());
  }
}
