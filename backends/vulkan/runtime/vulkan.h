// Vulkan through volk: every function is found at run time. volk's function pointers have the names of libvulkan's own
// functions, so they stay hidden inside libfreeport.so.
#pragma once

#include "runtime/status.h"

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#pragma GCC visibility push(hidden)
#include <volk.h>
#pragma GCC visibility pop

#include <string>

namespace freeport::vulkan {

/// A structure of Vulkan with its type filled in and all else zero.
template <typename T> T structure(VkStructureType type) {
  T made = {};
  made.sType = type;
  return made;
}

/// The name of a result, e.g. "VK_ERROR_DEVICE_LOST".
std::string result_name(VkResult result);

/// Success, or "WHAT: Vulkan says NAME" with the code that fits.
Status vulkan_status(VkResult result, const char *what);

/// "1.3.230".
std::string version_text(uint32_t version);

/// `value` rounded up or down to a multiple of `alignment`, a power of two.
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) & ~(alignment - 1); }
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) { return value & ~(alignment - 1); }

} // namespace freeport::vulkan
