// An open logical device: its functions, its queue, and whether it is still there.
#pragma once

#include "backends/vulkan/runtime/capabilities.h"

#include <memory>

namespace freeport::vulkan {

/// What a device did so far; tests hold the runtime to it.
struct Counters {
  uint64_t submissions = 0; ///< of launch programs
  uint64_t transfers = 0;   ///< submissions that only move data
  uint64_t recordings = 0;  ///< launch programs recorded into command buffers
  uint64_t allocations = 0; ///< vkAllocateMemory calls
  uint64_t imports = 0;     ///< memories that use host memory in place
};

class Context {
public:
  static Result<std::unique_ptr<Context>> create(const Capabilities &capabilities, bool timings);
  ~Context();
  Context(const Context &) = delete;
  Context &operator=(const Context &) = delete;

  Capabilities capabilities; ///< not changed once the device is in use; tests narrow limits before
  /// Whether descriptors show no more than a dispatch uses, for which each replay records again. The validation layer
  /// judges hazards by what descriptors show, so that it needs this; nothing else does.
  bool exact_windows = false;
  bool timings = false;    ///< whether launch programs measure their dispatches
  VolkDeviceTable vk = {}; ///< the functions of this device; tests replace some to simulate failures
  VkDevice handle = VK_NULL_HANDLE;
  VkQueue queue = VK_NULL_HANDLE;
  VkCommandPool commands = VK_NULL_HANDLE;
  Counters counters;

  /// The Status of a result; a lost device is remembered.
  Status check(VkResult result, const char *what);
  /// Success, or that the device was lost earlier: nothing else will work.
  Status usable() const;

  Result<VkCommandBuffer> make_command_buffer();
  Result<VkFence> make_fence();
  /// Hands `buffer` to the queue; `fence` is signalled when it is done.
  Status submit(VkCommandBuffer buffer, VkFence fence);
  /// Waits for a submitted fence and resets it.
  Status wait(VkFence fence);

private:
  Context() = default;
  bool lost_ = false;
};

/// Orders all work before against all work behind, with the host at both ends.
void full_barrier(const Context &context, VkCommandBuffer buffer);

} // namespace freeport::vulkan
