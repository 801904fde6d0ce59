// Recording in three walks over the commands: blocks and windows, descriptor sets, commands. A replay touches only the
// words that depend on sizes.
#include "backends/vulkan/runtime/recording.h"

#include "runtime/package_generated.h"
#include "runtime/size.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace freeport::vulkan {
namespace {

constexpr uint32_t kGridWords = 3;

template <typename... Arguments> Status out_of_range(fmt::format_string<Arguments...> text, Arguments &&...arguments) {
  return Status(Code::kOutOfRange, "vulkan: " + fmt::format(text, std::forward<Arguments>(arguments)...));
}

bool is_constant(const fp_size &size) {
  return !size.code || std::none_of(size.code, size.code + size.length, [](const fp_size_instruction &instruction) {
    return instruction.opcode == int32_t(package::SizeOpcode::symbol);
  });
}

bool is_dispatch(const fp_command &command) { return command.kind == FP_COMMAND_DISPATCH; }

} // namespace

Result<std::unique_ptr<Recording>> Recording::record(Context &context, MemoryPool &pool, const Executable &executable,
                                                     std::span<const fp_command> commands) {
  FP_RETURN_IF_ERROR(context.usable());
  std::unique_ptr<Recording> recording(new Recording(context, pool));
  FP_RETURN_IF_ERROR(recording->place(executable, commands));
  FP_RETURN_IF_ERROR(recording->make_objects());
  recording->constants_ = {};
  if (!context.exact_windows && recording->dispatches_) {
    recording->write_sets();
    FP_RETURN_IF_ERROR(recording->write_commands());
    recording->bounds_ = {};
    recording->windows_ = {};
  }
  return recording;
}

//===-- Recording -------------------------------------------------------------------------------------------------===//

Status Recording::place(const Executable &executable, std::span<const fp_command> commands) {
  const auto kernels = executable.kernels();
  for (const fp_command &command : commands) {
    if (command.kind == FP_COMMAND_BARRIER) {
      steps_.push_back(nullptr);
      continue;
    }
    if (!is_dispatch(command) || command.kernel >= kernels.size())
      return Status(Code::kInvalidArgument, fmt::format("record: expects a barrier or a dispatch of a kernel below {}, "
                                                        "got kernel {}",
                                                        kernels.size(), command.kernel));
    const LoadedKernel &kernel = kernels[command.kernel];
    if (command.binding_count != kernel.arguments.size() || command.scalar_count != kernel.scalars)
      return Status(Code::kCorrupt, fmt::format("record: kernel '{}' expects {} memories and {} scalars, got {} "
                                                "and {}",
                                                kernel.name, kernel.arguments.size(), kernel.scalars,
                                                command.binding_count, command.scalar_count));
    steps_.push_back(&kernel);
    const auto dispatch = uint32_t(dispatches_++);
    auto at = uint32_t(constants_.size());
    blocks_.push_back(at);
    constants_.resize(at + kGridWords + command.binding_count + command.scalar_count);
    for (uint32_t i = 0; i < kGridWords; ++i)
      FP_RETURN_IF_ERROR(add_word({Kind::grid, dispatch, i, command.grid[i], at++, 0,
                                   context_.capabilities.limits.maxComputeWorkGroupCount[i]}));
    for (uint32_t i = 0; i < command.binding_count; ++i)
      FP_RETURN_IF_ERROR(place_binding(command.bindings[i], kernel.arguments[i],
                                       {Kind::offset, dispatch, i, command.bindings[i].offset, at++, 0, 0}));
    for (uint32_t i = 0; i < command.scalar_count; ++i)
      FP_RETURN_IF_ERROR(add_word({Kind::scalar, dispatch, i, command.scalars[i], at++, 0, INT32_MAX}));
  }
  return Status();
}

/// Computes what the argument's descriptors show, and what a replay must check.
Status Recording::place_binding(const fp_binding &binding, const LoadedArgument &argument, Word word) {
  if (!binding.memory)
    return Status(Code::kInvalidArgument, "record: expects memory behind every binding, got NULL");
  const Memory &memory = *memory_of(binding.memory);
  if (argument.written && memory.slice.block->imported)
    return Status(Code::kInvalidArgument, fmt::format("record: argument {} of dispatch {} expects memory that it may "
                                                      "write, got the package's weights",
                                                      word.number, word.dispatch));
  if (binding.memory_offset > memory.bytes)
    return out_of_range("record: expects bindings inside {} bytes of memory, got one at {}", memory.bytes,
                        binding.memory_offset);
  const VkPhysicalDeviceLimits &limits = context_.capabilities.limits;
  const uint64_t start = memory.slice.offset + binding.memory_offset;
  const uint64_t aligned = align_down(start, std::max<uint64_t>(limits.minStorageBufferOffsetAlignment, 4));
  const uint64_t behind = memory.slice.offset + memory.slice.bytes;
  word.added = uint32_t(start - aligned);
  word.limit = std::min<uint64_t>(memory.bytes - binding.memory_offset, UINT32_MAX - word.added);
  bounds_.push_back({binding, &argument, word.at});
  for (const MemoryPiece &piece : argument.pieces) {
    if (aligned + piece.offset >= behind)
      return out_of_range("record: argument {} of dispatch {} expects {} bytes behind its start, the memory has {}",
                          word.number, word.dispatch, piece.offset, behind - aligned);
    const uint64_t rest = behind - aligned - piece.offset;
    const uint64_t wanted = piece.bytes ? std::min(rest, align_up(piece.bytes + word.added, 4)) : rest;
    const uint64_t shown = std::min<uint64_t>(wanted, align_down(limits.maxStorageBufferRange, 4));
    windows_.push_back({memory.slice.buffer(), aligned + piece.offset, shown});
    if (shown == wanted)
      continue;
    // The descriptor ends before the memory does: all accesses must be known to end earlier.
    if (piece.bytes || !binding.end.code) {
      return out_of_range("a memory of {} bytes exceeds the {} bytes that this device binds at once; use a smaller "
                          "context or step, or --device cpu",
                          memory.bytes, shown);
    }
    const uint64_t within = aligned + piece.offset - memory.slice.offset + shown; // relative to the memory
    FP_RETURN_IF_ERROR(add_word({Kind::end, word.dispatch, word.number, binding.end, 0, 0, within}));
  }
  return add_word(word);
}

/// Evaluates what is constant now, and leaves the rest to replays.
Status Recording::add_word(const Word &word) {
  if (!is_constant(word.size)) {
    words_.push_back(word);
    return Status();
  }
  FP_ASSIGN_OR_RETURN(const int64_t value, evaluate_size(word.size, {}));
  mapped_ = constants_.data();
  return store(word, value);
}

//===-- Replaying -------------------------------------------------------------------------------------------------===//

/// Checks a word's value and puts it where the kernel reads it.
Status Recording::store(const Word &word, int64_t value) {
  const bool fits = word.kind == Kind::scalar ? value == int32_t(value) : value >= 0 && uint64_t(value) <= word.limit;
  if (fits) {
    if (word.kind != Kind::end)
      mapped_[word.at] = uint32_t(value) + word.added;
    return Status();
  }
  switch (word.kind) {
  case Kind::grid:
    return out_of_range("dispatch {} expects a grid of 0 to {} programs in dimension {}, got {}; use a smaller step",
                        word.dispatch, word.limit, word.number, value);
  case Kind::offset:
    return out_of_range("argument {} of dispatch {} expects an offset of 0 to {}, got {}", word.number, word.dispatch,
                        word.limit, value);
  case Kind::scalar:
    return out_of_range("scalar {} of dispatch {} expects 32 bits, got {}; use a smaller context or step", word.number,
                        word.dispatch, value);
  case Kind::end:
    break;
  }
  return out_of_range(
      "argument {} of dispatch {} uses {} bytes of a memory of which this device binds {} at once; use a "
      "smaller step or context, or --device cpu",
      word.number, word.dispatch, value, word.limit);
}

/// Makes every window as small as what its dispatch uses at these sizes, and records with them.
Status Recording::narrow(std::span<const int64_t> symbols) {
  const VkPhysicalDeviceLimits &limits = context_.capabilities.limits;
  windows_.clear();
  for (const Bound &bound : bounds_) {
    const Memory &memory = *memory_of(bound.binding.memory);
    FP_ASSIGN_OR_RETURN(const int64_t offset, evaluate_size(bound.binding.offset, symbols));
    FP_ASSIGN_OR_RETURN(const int64_t end, evaluate_size(bound.binding.end, symbols));
    const uint64_t last = memory.slice.offset + memory.slice.bytes, least = 4;
    const uint64_t start = std::min(memory.slice.offset + bound.binding.memory_offset + uint64_t(offset), last - least);
    const uint64_t aligned = align_down(start, std::max<uint64_t>(limits.minStorageBufferOffsetAlignment, 4));
    const uint64_t behind =
        bound.binding.end.code ? std::min(last, align_up(memory.slice.offset + uint64_t(end), 4)) : last;
    mapped_[bound.at] = uint32_t(start - aligned);
    for (const MemoryPiece &piece : bound.argument->pieces) {
      const uint64_t from = std::min(aligned + piece.offset, last - least);
      uint64_t shown = std::max(behind, from + least) - from;
      if (piece.bytes)
        shown = std::min(shown, align_up(piece.bytes + start - aligned, 4));
      windows_.push_back({memory.slice.buffer(), from, std::min<uint64_t>(shown, limits.maxStorageBufferRange)});
    }
  }
  write_sets();
  return write_commands();
}

Status Recording::replay(std::span<const int64_t> symbols) {
  FP_RETURN_IF_ERROR(context_.usable());
  for (const Word &word : words_) {
    FP_ASSIGN_OR_RETURN(const int64_t value, evaluate_size(word.size, symbols));
    FP_RETURN_IF_ERROR(store(word, value));
  }
  if (dispatches_ == 0)
    return Status();
  if (context_.exact_windows)
    FP_RETURN_IF_ERROR(narrow(symbols));
  ++context_.counters.submissions;
  FP_RETURN_IF_ERROR(context_.submit(commands_, fence_));
  return context_.wait(fence_);
}

Status Recording::timings(std::span<fp_timing> timings) {
  if (!context_.timings)
    return Status(Code::kUnsupported, context_.capabilities.timestamps
                                          ? "vulkan: expects a device that was opened with timings"
                                          : "vulkan: expects a device with timestamps");
  if (ticks_.empty())
    return Status();
  FP_RETURN_IF_ERROR(
      context_.check(context_.vk.vkGetQueryPoolResults(context_.handle, queries_, 0, uint32_t(ticks_.size()),
                                                       ticks_.size() * sizeof(uint64_t), ticks_.data(),
                                                       sizeof(uint64_t), VK_QUERY_RESULT_64_BIT),
                     "reading timestamps"));
  const double period = double(context_.capabilities.limits.timestampPeriod);
  uint64_t last = ticks_[0]; // a device may write the end of an overlapped dispatch late
  for (size_t i = 0; i < std::min(timings.size(), dispatches_); ++i) {
    const uint64_t begin = last;
    last = std::max(last, ticks_[i + 1]);
    auto nanoseconds = [&](uint64_t tick) { return uint64_t(double(tick - ticks_[0]) * period); };
    timings[i] = {uint32_t(i), 0, nanoseconds(begin), nanoseconds(last)};
  }
  return Status();
}

} // namespace freeport::vulkan
