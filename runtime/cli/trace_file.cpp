#include "runtime/cli/trace_file.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace freeport::cli {
namespace {

/// Steps stand in a row of their own above the threads.
constexpr int kStepRow = 0;

nlohmann::json event(const std::string &name, uint64_t begin, uint64_t end, int row, nlohmann::json details) {
  return {{"name", name}, {"ph", "X"},  {"ts", double(begin) / 1e3}, {"dur", double(end - begin) / 1e3},
          {"pid", 1},     {"tid", row}, {"args", std::move(details)}};
}

nlohmann::json row_name(int row, const std::string &name) {
  return {{"name", "thread_name"}, {"ph", "M"}, {"pid", 1}, {"tid", row}, {"args", {{"name", name}}}};
}

} // namespace

Result<std::unique_ptr<TraceFile>> TraceFile::create(const std::string &path, const package::Manifest &manifest) {
  std::FILE *file = std::fopen(path.c_str(), "wbe");
  if (!file)
    return Status(Code::kIo, fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
  std::unique_ptr<TraceFile> trace(new TraceFile(path, file, manifest));
  trace->write("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n" + row_name(kStepRow, "steps").dump());
  return trace;
}

TraceFile::~TraceFile() {
  if (file_) // the run failed or was interrupted: what came before is still a trace
    (void)finish();
}

void TraceFile::write(const std::string &text) {
  failed_ |= std::fwrite(text.data(), 1, text.size(), file_) != text.size();
}

void TraceFile::add(const StepTimes &step) {
  if (start_ == std::chrono::steady_clock::time_point())
    start_ = step.begin;
  auto [entry, fresh] = work_.try_emplace({step.tokens, step.logit_rows});
  if (fresh)
    entry->second = dispatch_work(manifest_, int64_t(step.tokens), int64_t(step.logit_rows));
  auto since_start = [&](auto time) { return uint64_t(std::chrono::nanoseconds(time - start_).count()); };
  const uint64_t begin = since_start(step.begin);
  write(",\n" + event(fmt::format("step of {} tokens", step.tokens), begin, since_start(step.end), kStepRow,
                      {{"tokens", step.tokens}, {"logit_rows", step.logit_rows}})
                    .dump());
  // A thread works on pieces of a dispatch in a row: they are one event.
  struct Stretch {
    uint64_t begin = UINT64_MAX, end = 0;
    int pieces = 0;
  };
  std::map<uint32_t, Stretch> threads;
  for (size_t i = 0; i < step.timings.size(); ++i) {
    const fp_timing &piece = step.timings[i];
    Stretch &stretch = threads[piece.thread];
    stretch = {std::min(stretch.begin, piece.begin), std::max(stretch.end, piece.end), stretch.pieces + 1};
    if (i + 1 < step.timings.size() && step.timings[i + 1].dispatch == piece.dispatch)
      continue;
    const DispatchWork &dispatch = entry->second[piece.dispatch];
    for (const auto &[thread, each] : threads) {
      if (threads_.insert(thread).second)
        write(",\n" + row_name(kStepRow + 1 + int(thread), fmt::format("thread {}", thread)).dump());
      write(",\n" + event(dispatch.operation, begin + each.begin, begin + each.end, kStepRow + 1 + int(thread),
                          {{"kernel", dispatch.kernel},
                           {"dispatch", piece.dispatch},
                           {"chunks", each.pieces},
                           {"bytes", dispatch.work.bytes},
                           {"multiply_adds", dispatch.work.multiply_adds}})
                        .dump());
    }
    threads.clear();
  }
}

Status TraceFile::finish() {
  write("\n]}\n");
  failed_ |= std::fclose(std::exchange(file_, nullptr)) != 0;
  return failed_ ? Status(Code::kIo, path_ + ": cannot be written whole; is the disk full?") : Status();
}

} // namespace freeport::cli
