// Queries and creation. Features that Vulkan 1.3 took in are asked for as extensions where the device is older.
#include "backends/vulkan/runtime/capabilities.h"

#include "backends/vulkan/runtime/cooperative_matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace freeport::vulkan {
namespace {

constexpr VkSubgroupFeatureFlags kSubgroupOperations =
    VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT;

/// The structures of features that are asked for and then switched on, chained as far as the device knows them.
struct Features {
  VkPhysicalDeviceFeatures2 core = structure<VkPhysicalDeviceFeatures2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2);
  VkPhysicalDeviceVulkan11Features v11 =
      structure<VkPhysicalDeviceVulkan11Features>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES);
  VkPhysicalDeviceVulkan12Features v12 =
      structure<VkPhysicalDeviceVulkan12Features>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
  VkPhysicalDeviceSubgroupSizeControlFeatures subgroup = structure<VkPhysicalDeviceSubgroupSizeControlFeatures>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES);
  VkPhysicalDeviceShaderIntegerDotProductFeatures dot = structure<VkPhysicalDeviceShaderIntegerDotProductFeatures>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES);
  VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix = structure<VkPhysicalDeviceCooperativeMatrixFeaturesKHR>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR);

  Features(bool with_subgroup, bool with_dot, bool with_matrix) {
    core.pNext = &v11;
    v11.pNext = &v12;
    void **next = &v12.pNext;
    if (with_subgroup)
      *next = &subgroup, next = &subgroup.pNext;
    if (with_dot)
      *next = &dot, next = &dot.pNext;
    if (with_matrix)
      *next = &matrix;
  }
  Features(const Features &) = delete;
};

class ExtensionSet {
public:
  explicit ExtensionSet(VkPhysicalDevice device) {
    uint32_t count = 0;
    vkEnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr);
    extensions_.resize(count);
    vkEnumerateDeviceExtensionProperties(device, nullptr, &count, extensions_.data());
  }
  bool has(const char *name) const {
    return std::any_of(extensions_.begin(), extensions_.end(), [&](const VkExtensionProperties &extension) {
      return std::strcmp(extension.extensionName, name) == 0;
    });
  }

private:
  std::vector<VkExtensionProperties> extensions_;
};

std::string uuid_text(const uint8_t (&bytes)[VK_UUID_SIZE]) {
  std::string text;
  for (size_t i = 0; i < VK_UUID_SIZE; ++i)
    text += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", bytes[i]);
  return text;
}

/// The products of signed bytes with sums of 32 bits that a subgroup computes.
std::vector<MatrixShape> query_matrices(const Instance &instance, VkPhysicalDevice device) {
  auto query = reinterpret_cast<PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR>(
      vkGetInstanceProcAddr(instance.handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR"));
  uint32_t count = 0;
  if (!query || query(device, &count, nullptr) != VK_SUCCESS)
    return {};
  std::vector<VkCooperativeMatrixPropertiesKHR> offered(
      count, structure<VkCooperativeMatrixPropertiesKHR>(VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR));
  if (query(device, &count, offered.data()) != VK_SUCCESS)
    return {};
  std::vector<MatrixShape> shapes;
  for (const VkCooperativeMatrixPropertiesKHR &entry : offered)
    if (entry.AType == VK_COMPONENT_TYPE_SINT8_KHR && entry.BType == VK_COMPONENT_TYPE_SINT8_KHR &&
        entry.CType == VK_COMPONENT_TYPE_SINT32_KHR && entry.ResultType == VK_COMPONENT_TYPE_SINT32_KHR &&
        entry.scope == VK_SCOPE_SUBGROUP_KHR && !entry.saturatingAccumulation)
      shapes.push_back({entry.MSize, entry.NSize, entry.KSize});
  return shapes;
}

/// A family for compute alone where there is one, so that the desktop's work is not in the way.
int find_queue_family(VkPhysicalDevice device, bool &timestamps) {
  uint32_t count = 0;
  vkGetPhysicalDeviceQueueFamilyProperties(device, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  vkGetPhysicalDeviceQueueFamilyProperties(device, &count, families.data());
  int best = -1;
  for (uint32_t i = 0; i < count; ++i) {
    const bool compute = families[i].queueFlags & VK_QUEUE_COMPUTE_BIT;
    const bool alone = !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT);
    if (compute && (best < 0 || (alone && families[size_t(best)].queueFlags & VK_QUEUE_GRAPHICS_BIT)))
      best = int(i);
  }
  timestamps = best >= 0 && families[size_t(best)].timestampValidBits > 0;
  return best;
}

} // namespace

Capabilities query_capabilities(const Instance &instance, VkPhysicalDevice device) {
  Capabilities result;
  result.handle = device;
  result.validates = instance.validates;
  VkPhysicalDeviceProperties core;
  vkGetPhysicalDeviceProperties(device, &core);
  result.name = core.deviceName;
  // The instance counts in whole versions, the device tells its patch.
  result.version = std::min(instance.version | 0xfff, core.apiVersion);
  result.driver_version = core.driverVersion;
  result.type = core.deviceType;
  result.limits = core.limits;
  if (result.version < VK_API_VERSION_1_2)
    return result;

  const ExtensionSet extensions(device);
  const bool v13 = result.version >= VK_API_VERSION_1_3;
  const bool knows_subgroup = v13 || extensions.has(VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
  const bool knows_dot = v13 || extensions.has(VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
  const bool knows_size = v13 || extensions.has(VK_KHR_MAINTENANCE_4_EXTENSION_NAME);
  const bool knows_matrix = v13 && extensions.has(VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
  result.import_host = extensions.has(VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);

  VkPhysicalDeviceProperties2 properties =
      structure<VkPhysicalDeviceProperties2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2);
  VkPhysicalDeviceVulkan11Properties v11 =
      structure<VkPhysicalDeviceVulkan11Properties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES);
  VkPhysicalDeviceVulkan12Properties v12 =
      structure<VkPhysicalDeviceVulkan12Properties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES);
  VkPhysicalDeviceSubgroupSizeControlProperties subgroup = structure<VkPhysicalDeviceSubgroupSizeControlProperties>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES);
  VkPhysicalDeviceMaintenance4Properties size =
      structure<VkPhysicalDeviceMaintenance4Properties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES);
  VkPhysicalDeviceExternalMemoryHostPropertiesEXT import = structure<VkPhysicalDeviceExternalMemoryHostPropertiesEXT>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT);
  VkPhysicalDeviceCooperativeMatrixPropertiesKHR matrix = structure<VkPhysicalDeviceCooperativeMatrixPropertiesKHR>(
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_PROPERTIES_KHR);
  properties.pNext = &v11;
  v11.pNext = &v12;
  void **next = &v12.pNext;
  if (knows_subgroup)
    *next = &subgroup, next = &subgroup.pNext;
  if (knows_size)
    *next = &size, next = &size.pNext;
  if (result.import_host)
    *next = &import, next = &import.pNext;
  if (knows_matrix)
    *next = &matrix;
  vkGetPhysicalDeviceProperties2(device, &properties);
  result.driver = fmt::format("{} {}", v12.driverName, v12.driverInfo);
  result.driver_id = v12.driverID;
  std::memcpy(result.uuid_bytes, v11.deviceUUID, VK_UUID_SIZE);
  result.uuid = uuid_text(v11.deviceUUID);
  result.maximum_allocation = v11.maxMemoryAllocationSize;
  if (knows_size)
    result.maximum_allocation = std::min(result.maximum_allocation, size.maxBufferSize);
  if (v11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT)
    result.subgroup = v11.subgroupSupportedOperations;
  result.smallest_subgroup = result.largest_subgroup = v11.subgroupSize;
  result.rte32 = v12.shaderRoundingModeRTEFloat32;
  result.preserve32 = v12.shaderSignedZeroInfNanPreserveFloat32;
  result.import_alignment = import.minImportedHostPointerAlignment;

  Features features(knows_subgroup, knows_dot, knows_matrix);
  vkGetPhysicalDeviceFeatures2(device, &features.core);
  result.storage8 = features.v12.storageBuffer8BitAccess;
  result.storage16 = features.v11.storageBuffer16BitAccess;
  result.int8 = features.v12.shaderInt8;
  result.int16 = features.core.features.shaderInt16;
  result.int64 = features.core.features.shaderInt64;
  result.float16 = features.v12.shaderFloat16;
  result.float64 = features.core.features.shaderFloat64;
  result.integer_dot = features.dot.shaderIntegerDotProduct;
  result.array_indexing = features.core.features.shaderStorageBufferArrayDynamicIndexing;
  result.memory_model = features.v12.vulkanMemoryModel;
  // Kernels that multiply matrices are written against Vulkan's memory model.
  if (features.matrix.cooperativeMatrix && result.memory_model &&
      matrix.cooperativeMatrixSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT)
    result.matrices = query_matrices(instance, device);
  result.robust_access = features.core.features.robustBufferAccess;
  result.subgroup_control = features.subgroup.subgroupSizeControl && features.subgroup.computeFullSubgroups &&
                            (subgroup.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT);
  if (result.subgroup_control) {
    result.smallest_subgroup = subgroup.minSubgroupSize;
    result.largest_subgroup = subgroup.maxSubgroupSize;
  }
  result.queue_family = find_queue_family(device, result.timestamps);
  vkGetPhysicalDeviceMemoryProperties(device, &result.memory);
  for (uint32_t i = 0; i < result.memory.memoryHeapCount; ++i)
    if (result.memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
      result.device_memory = std::max<uint64_t>(result.device_memory, result.memory.memoryHeaps[i].size);
  return result;
}

std::string unusable(const Capabilities &device) {
  if (device.version < VK_API_VERSION_1_2)
    return "expects Vulkan 1.2 or newer, got " + version_text(device.version);
  if (device.queue_family < 0)
    return "expects a queue for compute, got none";
  if (!device.storage8)
    return "expects 8-bit storage buffers (storageBuffer8BitAccess), got none";
  return "";
}

bool offers_subgroup_size(const Capabilities &device, uint32_t size) {
  const bool within = device.smallest_subgroup <= size && size <= device.largest_subgroup;
  return device.subgroup_control && std::has_single_bit(size) && size <= 32 && within;
}

namespace {

/// The number behind `prefix`, or -1 where the condition is another.
int64_t number_behind(std::string_view condition, std::string_view prefix) {
  if (!condition.starts_with(prefix) || condition.size() == prefix.size() || condition.size() > prefix.size() + 9)
    return -1;
  int64_t value = 0;
  for (char digit : condition.substr(prefix.size())) {
    if (digit < '0' || digit > '9')
      return -1;
    value = value * 10 + (digit - '0');
  }
  return value;
}

std::string check_condition(const Capabilities &device, std::string_view condition) {
  const struct {
    std::string_view name;
    bool offered;
    const char *reason;
  } features[] = {
      {"vulkan1.2", device.version >= VK_API_VERSION_1_2, "expects Vulkan 1.2 or newer"},
      {"vulkan1.3", device.version >= VK_API_VERSION_1_3, "expects Vulkan 1.3 or newer"},
      {"storage8", device.storage8, "expects 8-bit storage buffers (storageBuffer8BitAccess)"},
      {"storage16", device.storage16, "expects 16-bit storage buffers (storageBuffer16BitAccess)"},
      {"int8", device.int8, "expects 8-bit integers (shaderInt8)"},
      {"int16", device.int16, "expects 16-bit integers (shaderInt16)"},
      {"int64", device.int64, "expects 64-bit integers (shaderInt64)"},
      {"float16", device.float16, "expects 16-bit floats (shaderFloat16)"},
      {"integer_dot", device.integer_dot, "expects integer dot products (shaderIntegerDotProduct)"},
      {"rte32", device.rte32, "expects rounding to nearest even for f32 (shaderRoundingModeRTEFloat32)"},
      {"preserve32", device.preserve32, "expects the sign of zero to be kept (shaderSignedZeroInfNanPreserveFloat32)"},
      {"memory_model", device.memory_model, "expects Vulkan's memory model (vulkanMemoryModel)"},
      {"array_indexing", device.array_indexing,
       "expects indexing of buffer arrays (shaderStorageBufferArrayDynamicIndexing)"},
  };
  for (const auto &feature : features)
    if (condition == feature.name)
      return feature.offered ? "" : feature.reason;
  if (const int64_t size = number_behind(condition, "subgroup"); size >= 0) {
    if ((device.subgroup & kSubgroupOperations) != kSubgroupOperations)
      return "expects basic, ballot and shuffle operations of subgroups in compute kernels";
    if (!offers_subgroup_size(device, uint32_t(size)))
      return fmt::format("expects subgroups of {} lanes on demand, the device offers {} to {}{}", size,
                         device.smallest_subgroup, device.largest_subgroup,
                         device.subgroup_control ? "" : " and no choice (subgroupSizeControl)");
    return "";
  }
  if (condition.starts_with("cooperative_matrix:")) {
    for (const MatrixShape &shape : device.matrices)
      if (condition == fmt::format("cooperative_matrix:{}x{}x{}", shape.rows, shape.columns, shape.inputs))
        return "";
    return fmt::format("expects cooperative matrices of signed bytes of {}, the device offers {}",
                       condition.substr(condition.find(':') + 1), device.matrices.empty() ? "none" : "others");
  }
  if (const int64_t count = number_behind(condition, "invocations:"); count >= 0) {
    const uint32_t most =
        std::min(device.limits.maxComputeWorkGroupInvocations, 32 * device.limits.maxComputeWorkGroupSize[1]);
    return count <= most ? "" : fmt::format("expects {} invocations in a workgroup, the device allows {}", count, most);
  }
  if (const int64_t bytes = number_behind(condition, "shared:"); bytes >= 0)
    return bytes <= device.limits.maxComputeSharedMemorySize
               ? ""
               : fmt::format("expects {} bytes of shared memory, the device has {}", bytes,
                             device.limits.maxComputeSharedMemorySize);
  if (const int64_t count = number_behind(condition, "storage_buffers:"); count >= 0) {
    const uint32_t most =
        std::min(device.limits.maxPerStageDescriptorStorageBuffers,
                 std::min(device.limits.maxDescriptorSetStorageBuffers, device.limits.maxPerStageResources));
    return count <= most ? ""
                         : fmt::format("expects {} storage buffers in a kernel, the device allows {}", count, most);
  }
  return fmt::format("knows no condition '{}'; update Freeport", condition);
}

} // namespace

std::string rejection(const Capabilities &device, std::string_view target, std::span<const char *const> conditions) {
  if (target != "spirv-1.5" && target != "spirv-1.6")
    return fmt::format("expects SPIR-V 1.5 or 1.6 (target spirv-1.5 or spirv-1.6), got target '{}'", target);
  for (const char *condition : conditions)
    if (std::string reason = check_condition(device, condition); !reason.empty())
      return reason;
  return "";
}

void describe(const Capabilities &device, fp_device_description &description) {
  auto fill = [](auto &field, const std::string &text) {
    std::memcpy(field, text.data(), std::min(text.size(), sizeof field - 1));
  };
  description = fp_device_description{};
  fill(description.name, device.name);
  fill(description.driver, device.driver);
  fill(description.api_version, version_text(device.version));
  fill(description.uuid, device.uuid);
  fill(description.reason, unusable(device));
  description.memory_bytes = device.device_memory;
  // An import may need the pages around it.
  description.maximum_bytes = align_down(device.maximum_allocation, 4096) - 8192;
  description.threads = 1;
}

Result<VkDevice> create_device(const Capabilities &capabilities) {
  const bool v13 = capabilities.version >= VK_API_VERSION_1_3;
  Features features(capabilities.subgroup_control, capabilities.integer_dot, !capabilities.matrices.empty());
  features.v12.storageBuffer8BitAccess = capabilities.storage8;
  features.v11.storageBuffer16BitAccess = capabilities.storage16;
  features.v12.shaderInt8 = capabilities.int8;
  features.core.features.shaderInt16 = capabilities.int16;
  features.core.features.shaderInt64 = capabilities.int64;
  features.v12.shaderFloat16 = capabilities.float16;
  features.core.features.shaderFloat64 = capabilities.float64;
  features.dot.shaderIntegerDotProduct = capabilities.integer_dot;
  features.core.features.shaderStorageBufferArrayDynamicIndexing = capabilities.array_indexing;
  features.v12.vulkanMemoryModel = capabilities.memory_model;
  features.matrix.cooperativeMatrix = !capabilities.matrices.empty();
  features.core.features.robustBufferAccess = capabilities.robust_access;
  features.subgroup.subgroupSizeControl = capabilities.subgroup_control;
  features.subgroup.computeFullSubgroups = capabilities.subgroup_control;
  std::vector<const char *> extensions;
  if (capabilities.import_host)
    extensions.push_back(VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME);
  if (!v13 && capabilities.subgroup_control)
    extensions.push_back(VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
  if (!v13 && capabilities.integer_dot)
    extensions.push_back(VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
  if (!capabilities.matrices.empty())
    extensions.push_back(VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
  const float priority = 1;
  VkDeviceQueueCreateInfo queue = structure<VkDeviceQueueCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO);
  queue.queueFamilyIndex = uint32_t(capabilities.queue_family);
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  VkDeviceCreateInfo info = structure<VkDeviceCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO);
  info.pNext = &features.core;
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  info.enabledExtensionCount = uint32_t(extensions.size());
  info.ppEnabledExtensionNames = extensions.data();
  VkDevice device;
  FP_RETURN_IF_ERROR(vulkan_status(vkCreateDevice(capabilities.handle, &info, nullptr, &device), "opening the device"));
  return device;
}

} // namespace freeport::vulkan
