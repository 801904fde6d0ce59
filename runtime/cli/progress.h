// One line on standard error while something takes long: shown on a terminal only, rewritten in place, gone at the end.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace freeport::cli {

class ProgressLine {
public:
  ProgressLine();
  ~ProgressLine();
  ProgressLine(const ProgressLine &) = delete;
  ProgressLine &operator=(const ProgressLine &) = delete;

  /// Shows `text`, at most ten times a second unless `always`.
  void show(const std::string &text, bool always = false);
  /// "what 12 of 345 MB".
  void show_bytes(const char *what, uint64_t done, uint64_t total);
  /// Takes the line away, for what follows on standard output.
  void clear();

private:
  bool terminal_, shown_ = false;
  std::chrono::steady_clock::time_point last_{};
};

} // namespace freeport::cli
