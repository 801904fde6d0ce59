// A launch program in a command buffer, recorded once. What depends on the sizes is not in it but in a buffer that the
// host fills before each submission: a block of words for every dispatch (backends/vulkan/README.md).
#pragma once

#include "backends/vulkan/runtime/executable.h"
#include "backends/vulkan/runtime/memory.h"
#include "runtime/device.h"

namespace freeport::vulkan {

/// What an fp_memory of this backend is. (Every backend has its own, so none may define fp_memory itself.)
struct Memory {
  Slice slice;
  uint64_t bytes; ///< as asked for; the slice has more
};
inline Memory *memory_of(fp_memory *handle) { return reinterpret_cast<Memory *>(handle); }

class Recording {
public:
  /// Records `commands`. kInvalidArgument where a dispatch does not fit its kernel, kOutOfRange where it cannot reach
  /// all of its memory: a descriptor shows at most maxStorageBufferRange bytes.
  static Result<std::unique_ptr<Recording>> record(Context &context, MemoryPool &pool, const Executable &executable,
                                                   std::span<const fp_command> commands);
  ~Recording();
  Recording(const Recording &) = delete;

  /// Evaluates the sizes, submits once and waits. kOutOfRange where a size exceeds a limit; then nothing ran.
  Status replay(std::span<const int64_t> symbols);
  size_t dispatches() const { return dispatches_; }
  /// When the last replay's dispatches ran, at most as many as `timings` holds. Of dispatches that may overlap, each
  /// begins where the one before it ended.
  Status timings(std::span<fp_timing> timings);

private:
  enum class Kind { grid, offset, scalar, end };
  /// A word of a block that each replay computes: value + added, with 0 <= value <= limit (scalars: 32 bits, signed).
  struct Word {
    Kind kind;
    uint32_t dispatch, number; ///< which grid dimension, argument or scalar: for messages
    fp_size size;
    uint32_t at;    ///< index into the params
    uint32_t added; ///< to an offset: what alignment left of the fixed part
    uint64_t limit;
  };

  /// A binding, for `narrow`.
  struct Bound {
    fp_binding binding;
    const LoadedArgument *argument;
    uint32_t at; ///< index of its offset in the params
  };

  Recording(Context &context, MemoryPool &pool) : context_(context), pool_(pool) {}
  Status place(const Executable &executable, std::span<const fp_command> commands);
  Status place_binding(const fp_binding &binding, const LoadedArgument &argument, Word word);
  Status add_word(const Word &word);
  Status store(const Word &word, int64_t value);
  Status narrow(std::span<const int64_t> symbols);
  Status make_objects();
  void write_sets();
  Status write_commands();

  Context &context_;
  MemoryPool &pool_;
  size_t dispatches_ = 0;
  std::vector<const LoadedKernel *> steps_; ///< the kernel of a dispatch; null: a barrier
  std::vector<Bound> bounds_;
  std::vector<Word> words_;         ///< those that are not constant
  std::vector<uint32_t> blocks_;    ///< by dispatch, where its block starts
  std::vector<uint32_t> constants_; ///< all params while recording
  std::vector<VkDescriptorBufferInfo> windows_;
  std::vector<VkDescriptorSet> sets_; ///< by dispatch
  std::vector<uint64_t> ticks_;
  Slice params_;
  uint64_t params_bytes_ = 0;
  uint32_t *mapped_ = nullptr; ///< params_, for the host
  VkDescriptorPool descriptors_ = VK_NULL_HANDLE;
  VkQueryPool queries_ = VK_NULL_HANDLE;
  VkCommandBuffer commands_ = VK_NULL_HANDLE;
  VkFence fence_ = VK_NULL_HANDLE;
};

} // namespace freeport::vulkan
