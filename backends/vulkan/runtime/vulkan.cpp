// The one place where volk's code is compiled.  The headers that it includes are seen before it becomes hidden.
#include <dlfcn.h>
#include <stdlib.h>

#define VOLK_IMPLEMENTATION
#include "backends/vulkan/runtime/vulkan.h"

namespace freeport::vulkan {

std::string result_name(VkResult result) {
  switch (result) {
#define FP_RESULT(name)                                                                                                \
  case name:                                                                                                           \
    return #name;
    FP_RESULT(VK_SUCCESS)
    FP_RESULT(VK_NOT_READY)
    FP_RESULT(VK_TIMEOUT)
    FP_RESULT(VK_INCOMPLETE)
    FP_RESULT(VK_ERROR_OUT_OF_HOST_MEMORY)
    FP_RESULT(VK_ERROR_OUT_OF_DEVICE_MEMORY)
    FP_RESULT(VK_ERROR_INITIALIZATION_FAILED)
    FP_RESULT(VK_ERROR_DEVICE_LOST)
    FP_RESULT(VK_ERROR_MEMORY_MAP_FAILED)
    FP_RESULT(VK_ERROR_LAYER_NOT_PRESENT)
    FP_RESULT(VK_ERROR_EXTENSION_NOT_PRESENT)
    FP_RESULT(VK_ERROR_FEATURE_NOT_PRESENT)
    FP_RESULT(VK_ERROR_INCOMPATIBLE_DRIVER)
    FP_RESULT(VK_ERROR_TOO_MANY_OBJECTS)
    FP_RESULT(VK_ERROR_FRAGMENTED_POOL)
    FP_RESULT(VK_ERROR_OUT_OF_POOL_MEMORY)
    FP_RESULT(VK_ERROR_INVALID_EXTERNAL_HANDLE)
#undef FP_RESULT
  default:
    return "VkResult " + std::to_string(int(result));
  }
}

Status vulkan_status(VkResult result, const char *what) {
  if (result == VK_SUCCESS) // allocates nothing
    return Status();
  const std::string text = std::string("vulkan: ") + what;
  switch (result) {
  case VK_ERROR_DEVICE_LOST:
    return Status(Code::kIo, text + ": the device was lost (VK_ERROR_DEVICE_LOST): a kernel ran too long or the driver "
                                    "was reset; open the model again, or on --device cpu");
  case VK_ERROR_OUT_OF_HOST_MEMORY:
  case VK_ERROR_OUT_OF_DEVICE_MEMORY:
  case VK_ERROR_TOO_MANY_OBJECTS:
  case VK_ERROR_FRAGMENTED_POOL:
  case VK_ERROR_OUT_OF_POOL_MEMORY:
  case VK_ERROR_MEMORY_MAP_FAILED:
    return Status(Code::kOutOfMemory, text + ": memory is exhausted (" + result_name(result) +
                                          "); use a shorter context, a smaller model or --device cpu");
  case VK_ERROR_EXTENSION_NOT_PRESENT:
  case VK_ERROR_FEATURE_NOT_PRESENT:
  case VK_ERROR_INCOMPATIBLE_DRIVER:
  case VK_ERROR_LAYER_NOT_PRESENT:
    return Status(Code::kUnsupported, text + ": the driver lacks something (" + result_name(result) + ")");
  default:
    return Status(Code::kIo, text + ": the driver reports " + result_name(result));
  }
}

std::string version_text(uint32_t version) {
  return std::to_string(VK_API_VERSION_MAJOR(version)) + "." + std::to_string(VK_API_VERSION_MINOR(version)) + "." +
         std::to_string(VK_API_VERSION_PATCH(version));
}

} // namespace freeport::vulkan
