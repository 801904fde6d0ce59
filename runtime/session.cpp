// A step is prepared on the host, replayed on the device, and only then takes effect: whatever fails before leaves
// every sequence as it was.
#include "runtime/session.h"

#include "runtime/size.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <sys/mman.h>

namespace freeport {
namespace {

constexpr int64_t kMaximumSequences = 4096;
constexpr int64_t kMaximumPages = int64_t(1) << 31; // page numbers, and places in the page table, are 32-bit integers

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

template <typename... Arguments> Status invalid(fmt::format_string<Arguments...> format, Arguments &&...arguments) {
  return Status(Code::kInvalidArgument, fmt::format(format, std::forward<Arguments>(arguments)...));
}

/// `value`, or `fallback` where it is 0; an error outside of 1 .. most.
Result<int64_t> option(const char *name, int64_t value, int64_t fallback, int64_t most) {
  if (value < 0 || value > most)
    return invalid("{}: expects 1 to {}, got {}", name, most, value);
  return value ? value : fallback;
}

/// kOutOfMemory where the host has no room for `bytes`: without exceptions, a vector that cannot grow ends the process.
Status expect_room(uint64_t bytes) {
  void *probe = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (probe == MAP_FAILED)
    return Status(Code::kOutOfMemory,
                  fmt::format("expects room for {} bytes of page tables, got more than this machine has; use a shorter "
                              "context or fewer sequences",
                              bytes));
  ::munmap(probe, bytes);
  return Status();
}

} // namespace

Result<std::unique_ptr<Session>> Session::create(std::shared_ptr<Model> model, const SessionOptions &options) {
  std::unique_ptr<Session> session(new Session(std::move(model)));
  FP_RETURN_IF_ERROR(session->allocate_all(options));
  FP_RETURN_IF_ERROR(session->record());
  session->observe_ = options.observe;
  return session;
}

/// A failure that only a wrong package explains, with the package's name.
Status Session::of_package(const Status &status) const {
  return Status(status.code(), model_->package().path() + ": " + status.message());
}

Status Session::allocate(uint64_t bytes, Memory &memory) {
  const fp_device_api &api = model_->api();
  fp_error error = {};
  if (api.allocate(model_->device(), bytes, &memory.memory, &error))
    return device_status(error);
  memory.mapped = api.map(model_->device(), memory.memory);
  memory.bytes = bytes;
  return Status();
}

Status Session::allocate_all(const SessionOptions &options) {
  const package::Manifest &manifest = model_->package().manifest();
  const package::Program &program = *manifest.program();
  const int64_t maximum = int64_t(manifest.maximum_context()), vocabulary = int64_t(manifest.vocabulary_size());
  const int64_t most_rows = int64_t(program.variants()->Get(program.variants()->size() - 1)->maximum_tokens());
  FP_ASSIGN_OR_RETURN(context_, option("context", options.context, std::min(maximum, kDefaultContext), maximum));
  FP_ASSIGN_OR_RETURN(const int64_t sequences, option("sequences", options.sequences, 1, kMaximumSequences));
  table_pages_ = pages_for(context_);
  if (table_pages_ * sequences > kMaximumPages)
    return invalid("pages: expects at most {} for all sequences, got {} sequences of {}", kMaximumPages, sequences,
                   table_pages_);
  FP_ASSIGN_OR_RETURN(const int64_t pages, option("pages", options.pages, table_pages_ * sequences, kMaximumPages));
  FP_ASSIGN_OR_RETURN(step_tokens_, option("step tokens", options.step_tokens, most_rows, most_rows));
  FP_ASSIGN_OR_RETURN(logit_rows_, option("logit rows", options.logit_rows, 1, most_rows));

  const int64_t symbols[kSymbols] = {step_tokens_, logit_rows_, sequences, table_pages_};
  std::copy_n(symbols, kSymbols, symbols_);
  const auto lock = model_->lock();
  // A manifest's size counts only where it is larger than what a step needs, so that no step can exceed its memory.
  auto allocate_sized = [&](const package::Size *size, int64_t needed, Memory &memory) -> Status {
    std::vector<fp_size_instruction> code;
    for (const package::SizeInstruction *each : *size->code())
      code.push_back({int32_t(each->opcode()), each->value()});
    const auto bytes = evaluate_size({code.data(), code.size()}, symbols);
    if (!bytes.ok())
      return of_package(bytes.status());
    return allocate(uint64_t(std::max(bytes.value(), needed)), memory);
  };
  FP_RETURN_IF_ERROR(allocate_sized(program.arena(), 0, arena_));
  const int64_t counts[kInputs] = {step_tokens_, step_tokens_, step_tokens_, sequences * table_pages_, logit_rows_};
  inputs_.resize(program.inputs()->size());
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const package::Buffer &input = *program.inputs()->Get(flatbuffers::uoffset_t(i));
    size_t kind = 0;
    while (input.name()->string_view() != input_name(Input(kind)))
      ++kind;
    FP_RETURN_IF_ERROR(allocate_sized(input.bytes(), counts[kind] * 4, inputs_[i]));
  }
  FP_RETURN_IF_ERROR(allocate_sized(program.outputs()->Get(0)->bytes(), logit_rows_ * vocabulary * 4, output_));
  states_.resize(manifest.states()->size());
  for (size_t i = 0; i < states_.size(); ++i) {
    const package::State &state = *manifest.states()->Get(flatbuffers::uoffset_t(i));
    if (Status status = allocate(uint64_t(pages) * state.page_bytes(), states_[i]); !status.ok())
      return Status(status.code(),
                    fmt::format("{} (context of {} tokens, {} sequences)", status.message(), context_, sequences));
  }

  const int64_t logits = output_.mapped ? 0 : logit_rows_ * vocabulary;
  uint64_t words = uint64_t(2 * pages + sequences * table_pages_ + logits); // the pool's, the sequences', the logits
  for (int64_t count : counts)
    words += uint64_t(count);
  FP_RETURN_IF_ERROR(expect_room(words * sizeof(int32_t)));
  pool_ = PagePool(uint32_t(pages));
  sequences_.resize(size_t(sequences));
  for (Sequence &sequence : sequences_)
    sequence.pages.reserve(size_t(table_pages_));
  active_.reserve(size_t(sequences));
  for (size_t i = 0; i < kInputs; ++i)
    input_values_[i].reserve(size_t(counts[i]));
  host_logits_.resize(size_t(logits));
  return Status();
}

Status Session::record() {
  auto resolve = [&](const package::Binding &binding) -> CommandList::Place {
    switch (binding.kind()) {
    case package::BindingKind::parameter: {
      const ParameterPlace place = model_->parameter(binding.index());
      return {place.memory, place.offset, place.bytes};
    }
    case package::BindingKind::state:
      return {states_[binding.index()].memory};
    case package::BindingKind::input:
      return {inputs_[binding.index()].memory};
    case package::BindingKind::output:
      return {output_.memory};
    case package::BindingKind::arena:
      break;
    }
    return {arena_.memory};
  };
  const auto lock = model_->lock();
  for (const package::Variant *variant : *model_->package().manifest().program()->variants()) {
    const auto commands = variants_.emplace_back(*variant, resolve).commands();
    fp_error error = {};
    if (model_->api().record(model_->device(), model_->executable(), commands.data(), commands.size(),
                             &recordings_.emplace_back(), &error))
      return of_package(device_status(error));
  }
  return Status();
}

Session::~Session() {
  const auto lock = model_->lock();
  const fp_device_api &api = model_->api();
  for (fp_recording *recording : recordings_)
    if (recording)
      api.erase(model_->device(), recording);
  auto release = [&](const Memory &memory) {
    if (memory.memory)
      api.release(model_->device(), memory.memory);
  };
  release(arena_);
  release(output_);
  std::for_each(states_.begin(), states_.end(), release);
  std::for_each(inputs_.begin(), inputs_.end(), release);
}

//===-- Sequences -------------------------------------------------------------------------------------------------===//

Status Session::check_sequence(int32_t sequence) const {
  if (sequence < 0 || size_t(sequence) >= sequences_.size() || !sequences_[size_t(sequence)].exists)
    return invalid("expects a sequence of this session, got {}", sequence);
  return Status();
}

Result<int32_t> Session::add() {
  for (size_t i = 0; i < sequences_.size(); ++i)
    if (!sequences_[i].exists) {
      sequences_[i].exists = true;
      return int32_t(i);
    }
  return Status(Code::kOutOfRange,
                fmt::format("expects at most {} sequences in this session, all exist; drop one", sequences_.size()));
}

Result<int32_t> Session::fork(int32_t sequence) {
  FP_RETURN_IF_ERROR(check_sequence(sequence));
  FP_ASSIGN_OR_RETURN(const int32_t copy, add());
  const Sequence &from = sequences_[size_t(sequence)];
  Sequence &to = sequences_[size_t(copy)];
  to.length = from.length;
  to.pages = from.pages;
  for (uint32_t page : to.pages)
    pool_.share(page);
  return copy;
}

void Session::release_pages(Sequence &sequence, size_t keep) {
  while (sequence.pages.size() > keep) {
    pool_.release(sequence.pages.back());
    sequence.pages.pop_back();
  }
}

Status Session::rewind(int32_t sequence, int64_t length) {
  FP_RETURN_IF_ERROR(check_sequence(sequence));
  Sequence &state = sequences_[size_t(sequence)];
  if (length < 0 || length > state.length)
    return invalid("rewind: expects a length of 0 to {}, got {}", state.length, length);
  state.length = length;
  release_pages(state, size_t(pages_for(length)));
  return Status();
}

Status Session::drop(int32_t sequence) {
  FP_RETURN_IF_ERROR(rewind(sequence, 0));
  sequences_[size_t(sequence)].exists = false;
  return Status();
}

Result<int64_t> Session::length(int32_t sequence) const {
  FP_RETURN_IF_ERROR(check_sequence(sequence));
  return sequences_[size_t(sequence)].length;
}

//===-- Steps -----------------------------------------------------------------------------------------------------===//

Status Session::check_context(uint64_t tokens) const {
  if (tokens <= uint64_t(context_))
    return Status();
  return Status(
      Code::kOutOfRange,
      fmt::format("expects at most {} tokens in a sequence (its context), got {}; use a larger context (-c), up "
                  "to the model's {}, or a shorter text",
                  context_, tokens, model_->package().manifest().maximum_context()));
}

/// Checks every row, and finds the step's sequences and what each of them adds.
Status Session::check_rows(std::span<const Row> rows) {
  if (rows.empty() || int64_t(rows.size()) > step_tokens_)
    return invalid("step: expects 1 to {} rows, got {}", step_tokens_, rows.size());
  const uint64_t vocabulary = model_->package().manifest().vocabulary_size();
  int64_t wanted = 0;
  for (const Row &row : rows) {
    if (row.token < 0 || uint64_t(row.token) >= vocabulary)
      return invalid("step: expects token ids of 0 to {}, got {}", vocabulary - 1, row.token);
    FP_RETURN_IF_ERROR(check_sequence(row.sequence));
    wanted += row.logits;
  }
  if (wanted > logit_rows_)
    return invalid("step: expects at most {} rows that want logits, got {}", logit_rows_, wanted);
  active_.clear();
  for (Sequence &sequence : sequences_)
    sequence.added = 0, sequence.table = -1;
  for (const Row &row : rows) {
    Sequence &sequence = sequences_[size_t(row.sequence)];
    if (sequence.added++ == 0) {
      sequence.table = int32_t(active_.size());
      active_.push_back(row.sequence);
    }
  }
  for (int32_t number : active_) {
    const Sequence &sequence = sequences_[size_t(number)];
    FP_RETURN_IF_ERROR(check_context(uint64_t(sequence.length + sequence.added)));
  }
  return Status();
}

/// Gives each sequence of the step the pages that its rows will fill; a shared page that is part full is replaced by a
/// copy.
Status Session::reserve_pages() {
  auto must_copy = [&](const Sequence &sequence) {
    return sequence.length % kPageTokens != 0 && pool_.is_shared(sequence.pages.back());
  };
  size_t needed = 0;
  for (int32_t number : active_) {
    const Sequence &sequence = sequences_[size_t(number)];
    needed += size_t(pages_for(sequence.length + sequence.added)) - sequence.pages.size() + must_copy(sequence);
  }
  if (needed > pool_.available())
    return Status(Code::kOutOfRange,
                  fmt::format("expects {} free pages of 32 tokens, got {} of {}; drop a sequence or create the session "
                              "with more pages",
                              needed, pool_.available(), pool_.size()));
  for (int32_t number : active_) {
    Sequence &sequence = sequences_[size_t(number)];
    sequence.kept = sequence.pages.size();
    sequence.copied = -1;
    if (must_copy(sequence)) {
      sequence.copied = sequence.pages.back();
      sequence.pages.back() = pool_.take();
    }
    while (int64_t(sequence.pages.size()) < pages_for(sequence.length + sequence.added))
      sequence.pages.push_back(pool_.take());
  }
  return Status();
}

void Session::undo() {
  for (int32_t number : active_) {
    Sequence &sequence = sequences_[size_t(number)];
    release_pages(sequence, sequence.kept);
    if (sequence.copied >= 0) {
      pool_.release(sequence.pages.back());
      sequence.pages.back() = uint32_t(sequence.copied);
    }
  }
}

/// Copies replaced pages and writes the step's inputs, and gives the symbols their values.
Status Session::fill_inputs(std::span<const Row> rows) {
  const fp_device_api &api = model_->api();
  const package::Manifest &manifest = model_->package().manifest();
  fp_error error = {};
  size_t most_pages = 0;
  for (int32_t number : active_) {
    const Sequence &sequence = sequences_[size_t(number)];
    most_pages = std::max(most_pages, sequence.pages.size());
    for (size_t state = 0; sequence.copied >= 0 && state < states_.size(); ++state) {
      const uint64_t bytes = manifest.states()->Get(flatbuffers::uoffset_t(state))->page_bytes();
      fp_memory *memory = states_[state].memory;
      if (api.copy(model_->device(), memory, sequence.pages[sequence.kept - 1] * bytes, memory,
                   uint64_t(sequence.copied) * bytes, bytes, &error))
        return device_status(error);
    }
  }
  for (std::vector<int32_t> &values : input_values_)
    values.clear();
  auto values = [&](Input input) -> std::vector<int32_t> & { return input_values_[size_t(input)]; };
  for (int32_t number : active_)
    sequences_[size_t(number)].added = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    Sequence &sequence = sequences_[size_t(rows[i].sequence)];
    values(Input::token_ids).push_back(rows[i].token);
    values(Input::positions).push_back(int32_t(sequence.length + sequence.added++));
    values(Input::sequences).push_back(sequence.table);
    if (rows[i].logits)
      values(Input::logit_rows).push_back(int32_t(i));
  }
  for (int32_t number : active_) {
    const Sequence &sequence = sequences_[size_t(number)];
    for (size_t i = 0; i < most_pages; ++i)
      values(Input::page_table).push_back(i < sequence.pages.size() ? int32_t(sequence.pages[i]) : 0);
  }
  symbols_[size_t(Symbol::tokens)] = int64_t(rows.size());
  symbols_[size_t(Symbol::logit_rows)] = int64_t(values(Input::logit_rows).size());
  symbols_[size_t(Symbol::sequences)] = int64_t(active_.size());
  symbols_[size_t(Symbol::table_pages)] = int64_t(most_pages);

  const auto &inputs = *manifest.program()->inputs();
  for (size_t i = 0; i < inputs_.size(); ++i)
    for (size_t kind = 0; kind < kInputs; ++kind) {
      if (inputs.Get(flatbuffers::uoffset_t(i))->name()->string_view() != input_name(Input(kind)))
        continue;
      const std::vector<int32_t> &from = input_values_[kind];
      if (api.write(model_->device(), inputs_[i].memory, 0, from.data(), from.size() * sizeof(int32_t), &error))
        return device_status(error);
    }
  return Status();
}

/// Everything before the replay; `variant_` is then the one to replay. After a failure every sequence is as it was.
Status Session::prepare(std::span<const Row> rows) {
  FP_RETURN_IF_ERROR(check_rows(rows));
  FP_RETURN_IF_ERROR(reserve_pages());
  wanted_ = 0;
  const auto &variants = *model_->package().manifest().program()->variants();
  variant_ = 0;
  while (variants.Get(flatbuffers::uoffset_t(variant_))->maximum_tokens() < rows.size())
    ++variant_;
  const auto lock = model_->lock();
  const Status status = fill_inputs(rows);
  if (!status.ok())
    undo();
  return status;
}

/// Everything behind the replay, which ended with `status`.
Status Session::complete(Status status) {
  const size_t wanted = size_t(symbols_[size_t(Symbol::logit_rows)]);
  const uint64_t bytes = wanted * model_->package().manifest().vocabulary_size() * sizeof(float);
  fp_error error = {};
  if (status.ok() && !output_.mapped && bytes) {
    const auto lock = model_->lock();
    if (model_->api().read(model_->device(), host_logits_.data(), output_.memory, 0, bytes, &error))
      status = device_status(error);
  }
  if (!status.ok()) {
    undo();
    return status;
  }
  for (int32_t number : active_) {
    Sequence &sequence = sequences_[size_t(number)];
    sequence.length += sequence.added;
    if (sequence.copied >= 0)
      pool_.release(uint32_t(sequence.copied));
  }
  wanted_ = wanted;
  logits_ = output_.mapped ? static_cast<const float *>(output_.mapped) : host_logits_.data();
  return Status();
}

/// Hands what the device measured of the step that has just run to the observer.
Status Session::tell_times(std::chrono::steady_clock::time_point begin) {
  const auto end = std::chrono::steady_clock::now();
  const fp_device_api &api = model_->api();
  size_t count = 0;
  fp_error error = {};
  for (bool enough = false; !enough;) {
    if (!api.timings)
      return Status(Code::kUnsupported, fmt::format("expects a device that measures its dispatches, got {}", api.name));
    if (api.timings(model_->device(), recordings_[variant_], timings_.data(), timings_.size(), &count, &error))
      return device_status(error);
    enough = count <= timings_.size();
    timings_.resize(std::max(count, timings_.size()));
  }
  observe_({size_t(symbols_[size_t(Symbol::tokens)]), size_t(symbols_[size_t(Symbol::logit_rows)]), begin, end,
            std::span(timings_).first(count)});
  return Status();
}

Status Session::step(std::span<const Row> rows) {
  FP_RETURN_IF_ERROR(prepare(rows));
  fp_error error = {};
  Status status;
  {
    const auto lock = model_->lock();
    const auto begin = std::chrono::steady_clock::now();
    if (model_->api().replay(model_->device(), recordings_[variant_], symbols_, kSymbols, &error))
      status = of_package(device_status(error));
    else if (observe_)
      status = tell_times(begin);
  }
  return complete(std::move(status));
}

Status Session::feed(int32_t sequence, std::span<const int32_t> tokens, int64_t chunk, bool logits,
                     bool (*progress)(void *context, size_t done, size_t total), void *progress_context) {
  FP_ASSIGN_OR_RETURN(const int64_t size, option("chunk", chunk, step_tokens_, step_tokens_));
  FP_ASSIGN_OR_RETURN(const int64_t before, length(sequence));
  if (tokens.empty())
    return invalid("feed: expects at least one token, got none");
  // Told at once, not after all that fits.
  FP_RETURN_IF_ERROR(check_context(uint64_t(before) + tokens.size()));
  std::vector<Row> rows;
  for (size_t done = 0; done < tokens.size(); done += rows.size()) {
    rows.clear();
    for (size_t i = done; i < std::min(tokens.size(), done + size_t(size)); ++i)
      rows.push_back({tokens[i], sequence, logits && i + 1 == tokens.size()});
    const bool go = !progress || progress(progress_context, done, tokens.size());
    if (Status status = go ? step(rows) : Status(Code::kCancelled, "interrupted"); !status.ok()) {
      FP_RETURN_IF_ERROR(rewind(sequence, before));
      return status;
    }
  }
  return Status();
}

std::span<const float> Session::logits(size_t index) const {
  if (index >= wanted_)
    return {};
  const uint64_t vocabulary = model_->package().manifest().vocabulary_size();
  return {logits_ + index * vocabulary, vocabulary};
}

} // namespace freeport
