// Data between host and device: directly where the host sees the memory, else through a ring of two staging buffers, so
// that the host fills one while the device empties the other.
#pragma once

#include "backends/vulkan/runtime/memory.h"

namespace freeport::vulkan {

class Transfers {
public:
  Transfers(Context &context, MemoryPool &pool) : context_(context), pool_(pool) {}
  ~Transfers();
  Transfers(const Transfers &) = delete;

  /// All return when the data is there; ranges lie inside their slices.
  Status write(const Slice &to, uint64_t offset, const void *from, uint64_t bytes);
  Status read(void *to, const Slice &from, uint64_t offset, uint64_t bytes);
  /// Ranges may overlap.
  Status copy(const Slice &to, uint64_t to_offset, const Slice &from, uint64_t from_offset, uint64_t bytes);
  Status zero(const Slice &slice);

private:
  struct Slot {
    Slice staging;
    VkCommandBuffer commands = VK_NULL_HANDLE;
    VkFence fence = VK_NULL_HANDLE;
    bool busy = false;
  };
  /// Slot `number`, ready to use.
  Result<Slot *> slot(size_t number, bool with_staging);
  Status begin(Slot &slot);
  Status submit(Slot &slot);
  Status finish(Slot &slot);
  Status finish_all();

  Context &context_;
  MemoryPool &pool_;
  Slot slots_[2];
};

} // namespace freeport::vulkan
