// Small memories share blocks, first hole that fits; large ones have a block of their own.
#include "backends/vulkan/runtime/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <unistd.h>

namespace freeport::vulkan {
namespace {

constexpr uint64_t kGranularity = 4096;
constexpr uint64_t kBlockBytes = uint64_t(64) << 20;
constexpr uint64_t kLargestShared = kBlockBytes / 8;
constexpr VkMemoryPropertyFlags kHost = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
/// Types that need more than the flags above say: protected, lazily allocated, AMD's uncached.
constexpr VkMemoryPropertyFlags kStrange =
    VkMemoryPropertyFlags(~uint32_t(0)) &
    ~(kHost | VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_CACHED_BIT);
constexpr VkBufferUsageFlags kUsage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
                                      VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;

/// How well a memory type serves a use; negative: not at all.
int score(VkMemoryPropertyFlags flags, Use use, bool shares_host_memory) {
  const bool host = (flags & kHost) == kHost, local = flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
  const bool cached = flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
  if (flags & kStrange || (use != Use::kernels && !host))
    return -1;
  if (use == Use::kernels)
    return shares_host_memory ? 8 * host + 4 * local + 2 * cached : 8 * local + !host;
  if (use == Use::upload)
    return 2 * local + !cached;
  return 2 * cached + !local;
}

} // namespace

MemoryPool::~MemoryPool() {
  for (Block &block : blocks_)
    destroy(block);
}

void MemoryPool::destroy(Block &block) {
  used_[context_.capabilities.memory.memoryTypes[block.type].heapIndex] -= block.allocated;
  context_.vk.vkDestroyBuffer(context_.handle, block.buffer, nullptr);
  context_.vk.vkFreeMemory(context_.handle, block.memory, nullptr);
}

std::vector<uint32_t> MemoryPool::types_for(Use use) const {
  const VkPhysicalDeviceMemoryProperties &memory = context_.capabilities.memory;
  auto score_of = [&](uint32_t type) {
    return score(memory.memoryTypes[type].propertyFlags, use, context_.capabilities.shares_host_memory());
  };
  std::vector<uint32_t> types;
  for (uint32_t type = 0; type < memory.memoryTypeCount; ++type)
    if (score_of(type) >= 0)
      types.push_back(type);
  std::sort(types.begin(), types.end(), [&](uint32_t left, uint32_t right) {
    return std::pair(-score_of(left), left) < std::pair(-score_of(right), right);
  });
  return types;
}

/// Creates the buffer of a block and its memory, or the import that `import_info` describes, and joins them.
Status MemoryPool::bind(Block &block, const void *import_info, VkBufferUsageFlags usage) {
  const VolkDeviceTable &vk = context_.vk;
  VkExternalMemoryBufferCreateInfo external =
      structure<VkExternalMemoryBufferCreateInfo>(VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO);
  external.handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
  VkBufferCreateInfo buffer = structure<VkBufferCreateInfo>(VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO);
  buffer.pNext = import_info ? &external : nullptr;
  buffer.size = block.bytes;
  buffer.usage = usage;
  FP_RETURN_IF_ERROR(
      context_.check(vk.vkCreateBuffer(context_.handle, &buffer, nullptr, &block.buffer), "making a buffer"));
  VkMemoryRequirements needs;
  vk.vkGetBufferMemoryRequirements(context_.handle, block.buffer, &needs);
  if (!(needs.memoryTypeBits >> block.type & 1) || (import_info && needs.size > block.bytes))
    return Status(Code::kUnsupported, "vulkan: expects storage buffers in this kind of memory");
  VkMemoryAllocateInfo info = structure<VkMemoryAllocateInfo>(VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO);
  info.pNext = import_info;
  info.allocationSize = std::max<uint64_t>(block.bytes, needs.size);
  info.memoryTypeIndex = block.type;
  ++context_.counters.allocations;
  FP_RETURN_IF_ERROR(context_.check(vk.vkAllocateMemory(context_.handle, &info, nullptr, &block.memory), "allocating"));
  if (!import_info) {
    block.allocated = info.allocationSize;
    used_[context_.capabilities.memory.memoryTypes[block.type].heapIndex] += block.allocated;
  }
  FP_RETURN_IF_ERROR(
      context_.check(vk.vkBindBufferMemory(context_.handle, block.buffer, block.memory, 0), "binding a buffer"));
  if (!import_info && (block.flags & kHost) == kHost) {
    void *mapped = nullptr;
    FP_RETURN_IF_ERROR(
        context_.check(vk.vkMapMemory(context_.handle, block.memory, 0, VK_WHOLE_SIZE, 0, &mapped), "mapping memory"));
    block.mapped = static_cast<char *>(mapped);
  }
  return Status();
}

Result<Block *> MemoryPool::make_block(uint64_t bytes, uint32_t type, bool shared) {
  const VkPhysicalDeviceMemoryProperties &memory = context_.capabilities.memory;
  const uint32_t heap = memory.memoryTypes[type].heapIndex;
  if (bytes > memory.memoryHeaps[heap].size - std::min(used_[heap], memory.memoryHeaps[heap].size))
    return Status(Code::kOutOfMemory,
                  fmt::format("vulkan: expects {} free bytes of device memory, got {} of {}; use a shorter context, a "
                              "smaller model or --device cpu",
                              bytes,
                              memory.memoryHeaps[heap].size - std::min(used_[heap], memory.memoryHeaps[heap].size),
                              memory.memoryHeaps[heap].size));
  Block &block = blocks_.emplace_back();
  block.bytes = bytes;
  block.type = type;
  block.flags = memory.memoryTypes[type].propertyFlags;
  block.shared = shared;
  if (Status status = bind(block, nullptr, kUsage); !status.ok()) {
    destroy(block);
    blocks_.pop_back();
    return status;
  }
  if (shared)
    block.free[0] = bytes;
  return &block;
}

Result<Slice> MemoryPool::allocate_shared(uint64_t bytes, uint32_t type) {
  auto take = [&](Block &block, std::map<uint64_t, uint64_t>::iterator hole) {
    const Slice slice = {&block, hole->first, bytes};
    const uint64_t rest = hole->second - bytes;
    block.free.erase(hole);
    if (rest)
      block.free[slice.offset + bytes] = rest;
    return slice;
  };
  for (Block &block : blocks_) {
    if (!block.shared || block.type != type)
      continue;
    for (auto hole = block.free.begin(); hole != block.free.end(); ++hole)
      if (hole->second >= bytes)
        return take(block, hole);
  }
  const VkPhysicalDeviceMemoryProperties &memory = context_.capabilities.memory;
  const uint64_t heap = memory.memoryHeaps[memory.memoryTypes[type].heapIndex].size;
  const uint64_t usual = std::min({align_down(context_.capabilities.maximum_allocation, kGranularity), kBlockBytes,
                                   align_down(heap / 16, kGranularity)});
  FP_ASSIGN_OR_RETURN(Block * block, make_block(std::max(usual, bytes), type, true));
  return take(*block, block->free.begin());
}

Result<Slice> MemoryPool::allocate(uint64_t bytes, Use use) {
  FP_RETURN_IF_ERROR(context_.usable());
  const uint64_t limit = align_down(context_.capabilities.maximum_allocation, kGranularity);
  if (bytes > limit)
    return Status(Code::kOutOfMemory,
                  fmt::format("vulkan: expects at most {} bytes in one piece of memory, got {}; use "
                              "a shorter context, fewer sequences or --device cpu",
                              limit, bytes));
  const uint64_t rounded = align_up(std::max<uint64_t>(bytes, 1), kGranularity);
  Status first(Code::kOutOfMemory, "vulkan: expects memory of a kind that this device lacks");
  bool tried = false;
  for (uint32_t type : types_for(use)) {
    Result<Slice> slice = Status(Code::kInternal, "");
    if (rounded <= kLargestShared) {
      slice = allocate_shared(rounded, type);
    } else if (auto block = make_block(rounded, type, false); block.ok()) {
      return Slice{block.value(), 0, block.value()->bytes};
    } else {
      slice = block.status();
    }
    if (slice.ok() || !context_.usable().ok())
      return slice;
    if (!tried)
      first = slice.status();
    tried = true;
  }
  return first;
}

Result<Slice> MemoryPool::import(const void *data, uint64_t bytes) {
  const Status no(Code::kUnsupported, "vulkan: expects host memory that the device can use in place");
  const uint64_t alignment = context_.capabilities.import_alignment;
  // What is around `data` up to whole pages is there; more may not be.
  if (!context_.capabilities.import_host || !context_.capabilities.shares_host_memory() || bytes == 0 ||
      alignment > uint64_t(::sysconf(_SC_PAGESIZE)))
    return no;
  FP_RETURN_IF_ERROR(context_.usable());
  const uint64_t address = reinterpret_cast<uintptr_t>(data), begin = align_down(address, alignment);
  const uint64_t size = align_up(address + bytes, alignment) - begin;
  if (size > context_.capabilities.maximum_allocation)
    return no;
  auto *pointer = reinterpret_cast<void *>(begin);
  constexpr auto kType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
  VkMemoryHostPointerPropertiesEXT properties =
      structure<VkMemoryHostPointerPropertiesEXT>(VK_STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT);
  if (context_.vk.vkGetMemoryHostPointerPropertiesEXT(context_.handle, kType, pointer, &properties) != VK_SUCCESS)
    return no;
  VkImportMemoryHostPointerInfoEXT import =
      structure<VkImportMemoryHostPointerInfoEXT>(VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT);
  import.handleType = kType;
  import.pHostPointer = pointer;
  for (uint32_t type : types_for(Use::kernels)) {
    if (!(properties.memoryTypeBits >> type & 1))
      continue;
    Block &block = blocks_.emplace_back();
    block.bytes = size;
    block.type = type;
    block.imported = true;
    block.mapped = static_cast<char *>(pointer);
    if (bind(block, &import, VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT).ok()) {
      ++context_.counters.imports;
      return Slice{&block, address - begin, size - (address - begin)};
    }
    destroy(block);
    blocks_.pop_back();
  }
  FP_RETURN_IF_ERROR(context_.usable());
  return no;
}

void MemoryPool::release(const Slice &slice) {
  Block *block = slice.block;
  if (!block)
    return;
  if (block->shared) {
    auto hole = block->free.emplace(slice.offset, slice.bytes).first;
    if (auto next = std::next(hole); next != block->free.end() && hole->first + hole->second == next->first) {
      hole->second += next->second;
      block->free.erase(next);
    }
    if (hole != block->free.begin())
      if (auto before = std::prev(hole); before->first + before->second == hole->first) {
        before->second += hole->second;
        block->free.erase(hole);
        hole = before;
      }
    if (hole->second != block->bytes)
      return;
  }
  destroy(*block);
  blocks_.remove_if([&](const Block &each) { return &each == block; });
}

} // namespace freeport::vulkan
