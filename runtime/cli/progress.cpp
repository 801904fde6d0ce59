// A carriage return and an erase sequence in front of each text; nothing is written where standard error is not a
// terminal.
#include "runtime/cli/progress.h"

#include <fmt/format.h>

#include <cstdio>
#include <unistd.h>

namespace freeport::cli {

ProgressLine::ProgressLine() : terminal_(::isatty(STDERR_FILENO)) {}

ProgressLine::~ProgressLine() { clear(); }

void ProgressLine::clear() {
  if (shown_)
    std::fputs("\r\033[K", stderr);
  shown_ = false;
}

void ProgressLine::show(const std::string &text, bool always) {
  const auto now = std::chrono::steady_clock::now();
  if (!terminal_ || (!always && now - last_ < std::chrono::milliseconds(100)))
    return;
  last_ = now;
  shown_ = true;
  std::fprintf(stderr, "\r\033[K%s", text.c_str());
}

void ProgressLine::show_bytes(const char *what, uint64_t done, uint64_t total) {
  show(fmt::format("{} {:.0f} of {:.0f} MB", what, double(done) / 1e6, double(total) / 1e6), done == total);
}

} // namespace freeport::cli
