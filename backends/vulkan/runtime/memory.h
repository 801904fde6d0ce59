// Device memory: a sub-allocator over blocks that respect the device's limits. A block is one allocation with one
// buffer over all of it; an fp_memory is a range of a block.
#pragma once

#include "backends/vulkan/runtime/context.h"

#include <list>
#include <map>

namespace freeport::vulkan {

/// What a memory is for, which decides its memory type.
enum class Use {
  kernels, ///< read and written by kernels
  upload,  ///< small, written by the host for kernels to read
  staging, ///< read and written by the host, copied from and to
};

struct Block {
  VkDeviceMemory memory = VK_NULL_HANDLE;
  VkBuffer buffer = VK_NULL_HANDLE;
  uint64_t bytes = 0;                ///< of the buffer
  uint64_t allocated = 0;            ///< of the heap; 0 for an import
  uint32_t type = 0;                 ///< memory type
  VkMemoryPropertyFlags flags = 0;   ///< of the type
  char *mapped = nullptr;            ///< all of it, where the host sees it
  bool shared = false;               ///< holds several memories
  bool imported = false;             ///< host memory of somebody else, which is only read
  std::map<uint64_t, uint64_t> free; ///< offset -> bytes of the holes
};

/// A range of a block's buffer.
struct Slice {
  Block *block = nullptr;
  uint64_t offset = 0, bytes = 0;

  VkBuffer buffer() const { return block->buffer; }
  /// Where the host writes it directly, or null.
  char *writable() const { return block->mapped && !block->imported ? block->mapped + offset : nullptr; }
  /// Where the host reads it at full speed, or null.
  char *readable() const {
    const bool fast = block->imported || block->flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    return block->mapped && fast ? block->mapped + offset : nullptr;
  }
};

class MemoryPool {
public:
  explicit MemoryPool(Context &context) : context_(context) {}
  ~MemoryPool();
  MemoryPool(const MemoryPool &) = delete;

  /// At least `bytes` bytes, rounded up to 4 KiB and as aligned, with undefined content. kOutOfMemory where no heap has
  /// them or one buffer cannot be that large.
  Result<Slice> allocate(uint64_t bytes, Use use);
  /// Host memory in place; `offset` of the result is where `data` lies. kUnsupported where the device cannot.
  Result<Slice> import(const void *data, uint64_t bytes);
  void release(const Slice &slice);

  /// Bytes allocated from each heap, imports left out.
  uint64_t used(uint32_t heap) const { return used_[heap]; }

private:
  Result<Block *> make_block(uint64_t bytes, uint32_t type, bool shared);
  Status bind(Block &block, const void *import_info, VkBufferUsageFlags usage);
  Result<Slice> allocate_shared(uint64_t bytes, uint32_t type);
  void destroy(Block &block);
  std::vector<uint32_t> types_for(Use use) const;

  Context &context_;
  std::list<Block> blocks_;
  uint64_t used_[VK_MAX_MEMORY_HEAPS] = {};
};

} // namespace freeport::vulkan
