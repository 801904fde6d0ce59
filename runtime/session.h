// Sequences of tokens on a model: their cached pages, and steps that extend them and give logits.
#pragma once

#include "runtime/command_list.h"
#include "runtime/model.h"
#include "runtime/page_pool.h"
#include "runtime/status.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace freeport {

/// What the device measured of one step.
struct StepTimes {
  size_t tokens, logit_rows;
  std::chrono::steady_clock::time_point begin, end; ///< of the replay
  std::span<const fp_timing> timings;               ///< by dispatch; valid during the call
};

struct SessionOptions {
  int64_t context = 0;     ///< tokens that a sequence may have; 0: the smaller of the model's maximum and 8,192
  int64_t sequences = 1;   ///< that may exist at once
  int64_t pages = 0;       ///< of 32 tokens, shared by all sequences; 0: enough for every sequence to fill its context
  int64_t step_tokens = 0; ///< rows of one step; 0: the most that the program takes
  int64_t logit_rows = 1;  ///< rows of one step that may want logits
  /// Called after each step, by its caller; the model was opened with `timings`. Null: not wanted.
  std::function<void(const StepTimes &)> observe = nullptr;
};

/// One row of a step: `token` is appended to `sequence`, and its position is the sequence's length at that moment.
struct Row {
  int32_t token;
  int32_t sequence;
  bool logits; ///< whether the logits behind this row are wanted
};

/// The bits of a sequence's logits do not depend on which other sequences share its steps, nor on how its tokens are
/// cut into steps. One caller at a time for each session; sessions of one model may run on different threads. After the
/// first step of each size class no call allocates, save to report an error.
class Session {
public:
  static constexpr int64_t kDefaultContext = 8192;

  /// kInvalidArgument for options out of range, kOutOfMemory where the device cannot hold the pages.
  static Result<std::unique_ptr<Session>> create(std::shared_ptr<Model> model, const SessionOptions &options);
  ~Session();
  Session(const Session &) = delete;
  Session &operator=(const Session &) = delete;

  const Model &model() const { return *model_; }
  int64_t context() const { return context_; }
  int64_t step_tokens() const { return step_tokens_; }
  int64_t logit_rows() const { return logit_rows_; }

  /// A new, empty sequence; kOutOfRange where all exist already.
  Result<int32_t> add();
  /// A copy of `sequence` that shares its pages: nothing is copied until one of both extends a page that is part full.
  Result<int32_t> fork(int32_t sequence);
  /// Forgets all but the first `length` tokens.
  Status rewind(int32_t sequence, int64_t length);
  Status drop(int32_t sequence);
  Result<int64_t> length(int32_t sequence) const;
  /// Pages that hold tokens, each counted once however many sequences share it.
  size_t pages_used() const { return pool_.size() - pool_.available(); }

  /// Appends the rows to their sequences. kOutOfRange where a context or the pages are exceeded, kInvalidArgument for
  /// unknown tokens and sequences or too many rows; then nothing has changed.
  Status step(std::span<const Row> rows);
  /// Appends `tokens` to `sequence` in steps of at most `chunk` rows (0: step_tokens()); with `logits`, the last step's
  /// first logits are those behind the last token. `progress` may be null; it returns false to cancel (kCancelled).
  /// Where it fails, the sequence is as it was.
  Status feed(int32_t sequence, std::span<const int32_t> tokens, int64_t chunk, bool logits,
              bool (*progress)(void *context, size_t done, size_t total), void *progress_context);
  /// The logits of the last step's row `index` among those that wanted them: vocabulary_size floats, valid until the
  /// next step.
  std::span<const float> logits(size_t index) const;

private:
  friend class StepTrace;

  struct Sequence {
    bool exists = false;
    int64_t length = 0;
    std::vector<uint32_t> pages;
    int64_t added = 0;   ///< rows of the step that is being prepared
    int32_t table = -1;  ///< row of the page table in that step
    size_t kept = 0;     ///< pages before that step
    int64_t copied = -1; ///< the page that it replaced by a copy
  };
  struct Memory {
    fp_memory *memory = nullptr;
    void *mapped = nullptr;
    uint64_t bytes = 0;
  };

  explicit Session(std::shared_ptr<Model> model) : model_(std::move(model)), pool_(0) {}
  Status of_package(const Status &status) const;
  Status allocate(uint64_t bytes, Memory &memory);
  Status allocate_all(const SessionOptions &options);
  Status record();
  Status check_context(uint64_t tokens) const;
  Status check_rows(std::span<const Row> rows);
  Status reserve_pages();
  Status fill_inputs(std::span<const Row> rows);
  Status prepare(std::span<const Row> rows);
  Status complete(Status status);
  Status tell_times(std::chrono::steady_clock::time_point begin);
  void undo();
  Status check_sequence(int32_t sequence) const;
  void release_pages(Sequence &sequence, size_t keep);

  std::shared_ptr<Model> model_;
  int64_t context_ = 0, step_tokens_ = 0, logit_rows_ = 0, table_pages_ = 0;
  PagePool pool_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> active_; ///< the sequences of the step, by row of the page table
  Memory arena_, output_;
  std::vector<Memory> states_, inputs_;
  std::vector<int32_t> input_values_[kInputs];
  std::vector<CommandList> variants_;
  std::vector<fp_recording *> recordings_; ///< by variant
  size_t variant_ = 0;                     ///< of the step that is being prepared
  std::vector<float> host_logits_;
  const float *logits_ = nullptr;
  size_t wanted_ = 0;
  int64_t symbols_[kSymbols] = {};
  std::function<void(const StepTimes &)> observe_;
  std::vector<fp_timing> timings_;
};

} // namespace freeport
