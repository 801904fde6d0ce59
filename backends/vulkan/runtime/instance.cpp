// Loading, creation and validation of instance.h.
#include "backends/vulkan/runtime/instance.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace freeport::vulkan {
namespace {

constexpr const char *kValidationLayer = "VK_LAYER_KHRONOS_validation";

std::atomic<uint64_t> messages = 0;

VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT, VkDebugUtilsMessageTypeFlagsEXT,
                                          const VkDebugUtilsMessengerCallbackDataEXT *data, void *) {
  ++messages;
  std::fprintf(stderr, "error: vulkan validation: %s\n", data->pMessage);
  return VK_FALSE;
}

bool wants_validation() {
  const char *value = std::getenv("FREEPORT_VULKAN_VALIDATION");
  return value && *value && std::strcmp(value, "0") != 0;
}

bool has_layer(const char *name) {
  uint32_t count = 0;
  vkEnumerateInstanceLayerProperties(&count, nullptr);
  std::vector<VkLayerProperties> layers(count);
  vkEnumerateInstanceLayerProperties(&count, layers.data());
  return std::any_of(layers.begin(), layers.end(),
                     [&](const VkLayerProperties &layer) { return std::strcmp(layer.layerName, name) == 0; });
}

Result<Instance> create() {
  if (volkInitialize() != VK_SUCCESS)
    return Status(Code::kUnsupported, "expects the Vulkan loader libvulkan.so.1, found none; install the driver of "
                                      "your GPU (on Debian: libvulkan1 and mesa-vulkan-drivers)");
  Instance instance;
  instance.version = std::min<uint32_t>(volkGetInstanceVersion(), VK_API_VERSION_1_3);
  if (instance.version < VK_API_VERSION_1_2)
    return Status(Code::kUnsupported, "expects a loader of Vulkan 1.2 or newer, got " + version_text(instance.version));
  VkApplicationInfo application = structure<VkApplicationInfo>(VK_STRUCTURE_TYPE_APPLICATION_INFO);
  application.pApplicationName = application.pEngineName = "freeport";
  application.apiVersion = instance.version;
  VkInstanceCreateInfo info = structure<VkInstanceCreateInfo>(VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO);
  info.pApplicationInfo = &application;

  const char *extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
  const VkValidationFeatureEnableEXT checks[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
  VkValidationFeaturesEXT features = structure<VkValidationFeaturesEXT>(VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT);
  features.enabledValidationFeatureCount = 1;
  features.pEnabledValidationFeatures = checks;
  VkDebugUtilsMessengerCreateInfoEXT messenger =
      structure<VkDebugUtilsMessengerCreateInfoEXT>(VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT);
  messenger.pNext = &features;
  messenger.messageSeverity =
      VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  messenger.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT;
  messenger.pfnUserCallback = on_message;
  instance.validates = wants_validation();
  if (instance.validates) {
    if (!has_layer(kValidationLayer))
      return Status(Code::kUnsupported, std::string("FREEPORT_VULKAN_VALIDATION: expects the layer ") +
                                            kValidationLayer + ", found none; on Debian: vulkan-validationlayers");
    info.ppEnabledLayerNames = &kValidationLayer;
    info.enabledLayerCount = 1;
    info.ppEnabledExtensionNames = extensions;
    info.enabledExtensionCount = 2;
    info.pNext = &messenger;
  }
  const VkResult result = vkCreateInstance(&info, nullptr, &instance.handle);
  if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
    return Status(Code::kUnsupported, "expects a Vulkan driver, found none; install the driver of your GPU (on Debian: "
                                      "mesa-vulkan-drivers)");
  FP_RETURN_IF_ERROR(vulkan_status(result, "creating an instance"));
  volkLoadInstanceOnly(instance.handle);
  if (instance.validates) {
    messenger.pNext = nullptr;
    VkDebugUtilsMessengerEXT made;
    FP_RETURN_IF_ERROR(vulkan_status(vkCreateDebugUtilsMessengerEXT(instance.handle, &messenger, nullptr, &made),
                                     "listening to the validation layer"));
  }
  uint32_t count = 0;
  FP_RETURN_IF_ERROR(
      vulkan_status(vkEnumeratePhysicalDevices(instance.handle, &count, nullptr), "looking for devices"));
  instance.devices.resize(count);
  FP_RETURN_IF_ERROR(vulkan_status(vkEnumeratePhysicalDevices(instance.handle, &count, instance.devices.data()),
                                   "looking for devices"));
  instance.devices.resize(count);
  if (instance.devices.empty())
    return Status(Code::kUnsupported, "expects a Vulkan device, the drivers of this machine find none");
  return instance;
}

} // namespace

Result<const Instance *> Instance::get() {
  static std::mutex mutex;
  static const Instance *instance = nullptr;
  const std::lock_guard lock(mutex);
  if (!instance) {
    FP_ASSIGN_OR_RETURN(Instance made, create());
    instance = new Instance(std::move(made));
  }
  return instance;
}

uint64_t validation_messages() { return messages; }

} // namespace freeport::vulkan
