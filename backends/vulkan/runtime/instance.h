// The process's Vulkan instance, made when somebody first asks for it and kept until the process ends: loading drivers
// costs tens of milliseconds, and unloading them is where they crash.
#pragma once

#include "backends/vulkan/runtime/vulkan.h"

#include <vector>

namespace freeport::vulkan {

struct Instance {
  VkInstance handle = VK_NULL_HANDLE;
  uint32_t version = 0;                  ///< of the interface that it was made for
  bool validates = false;                ///< the validation layer is on
  std::vector<VkPhysicalDevice> devices; ///< in the driver's order, which selectors count by

  /// The instance; kUnsupported where this machine has no Vulkan. Thread-safe. FREEPORT_VULKAN_VALIDATION=1, read at
  /// the first call, switches the validation layer on, with synchronization validation; kUnsupported where it is
  /// missing.
  static Result<const Instance *> get();
};

/// Messages of the validation layer so far; each was printed to standard error.
uint64_t validation_messages();

} // namespace freeport::vulkan
