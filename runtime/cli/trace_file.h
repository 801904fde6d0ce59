// `--profile`: every step of a session in Chrome's trace event format, which Perfetto reads too.
#pragma once

#include "runtime/cli/work.h"
#include "runtime/session.h"

#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <string>

namespace freeport::cli {

/// A step is an event, and so is what each thread did for each of its dispatches, with the kernel, and with the bytes
/// and multiply-adds of all threads together. Written as steps come, so a long run needs no memory; `finish` makes the
/// file whole.
class TraceFile {
public:
  /// kIo where `path` cannot be written.
  static Result<std::unique_ptr<TraceFile>> create(const std::string &path, const package::Manifest &manifest);
  ~TraceFile();
  TraceFile(const TraceFile &) = delete;

  void add(const StepTimes &step);
  /// kIo where something could not be written, as on a full disk.
  Status finish();

private:
  TraceFile(std::string path, std::FILE *file, const package::Manifest &manifest)
      : path_(std::move(path)), file_(file), manifest_(manifest) {}
  void write(const std::string &text);

  const std::string path_;
  std::FILE *file_;
  const package::Manifest &manifest_;
  bool failed_ = false;
  std::chrono::steady_clock::time_point start_{};                       ///< of the first step
  std::set<uint32_t> threads_;                                          ///< whose rows have names
  std::map<std::pair<size_t, size_t>, std::vector<DispatchWork>> work_; ///< by tokens and logit rows of a step
};

} // namespace freeport::cli
