// What one physical device offers, as data: everything that decides whether it can be used, which executables it takes
// and how memory is laid out on it.
#pragma once

#include "backends/vulkan/runtime/instance.h"
#include "runtime/device.h"

#include <span>
#include <string_view>
#include <vector>

namespace freeport::vulkan {

/// A product of cooperative matrices that a device computes: rows x inputs by inputs x columns.
struct MatrixShape {
  uint32_t rows = 0, columns = 0, inputs = 0;
};

struct Capabilities {
  VkPhysicalDevice handle = VK_NULL_HANDLE;
  std::string name, driver, uuid; ///< uuid: 32 hexadecimal digits with dashes
  uint8_t uuid_bytes[VK_UUID_SIZE] = {};
  uint32_t version = 0; ///< of the interface that both the instance and the device have
  uint32_t driver_version = 0;
  VkDriverId driver_id = {};
  VkPhysicalDeviceType type = VK_PHYSICAL_DEVICE_TYPE_OTHER;
  VkPhysicalDeviceLimits limits = {};
  VkPhysicalDeviceMemoryProperties memory = {};
  uint64_t device_memory = 0;      ///< bytes of the largest device-local heap
  uint64_t maximum_allocation = 0; ///< bytes of one allocation and buffer
  int queue_family = -1;           ///< with compute; -1: none
  bool timestamps = false;
  bool validates = false; ///< the validation layer watches

  // Features, as they are switched on.
  bool storage8 = false, storage16 = false, int8 = false, int16 = false, int64 = false, float16 = false,
       float64 = false, integer_dot = false, array_indexing = false, memory_model = false, robust_access = false,
       subgroup_control = false, import_host = false;
  bool rte32 = false;                  ///< round to nearest even, as an execution mode for f32
  bool preserve32 = false;             ///< keep signs of zero, infinities and NaNs, as an execution mode for f32
  VkSubgroupFeatureFlags subgroup = 0; ///< operations in compute kernels
  uint32_t smallest_subgroup = 0, largest_subgroup = 0;
  uint64_t import_alignment = 0;
  /// Of signed bytes with sums of 32 bits, by a subgroup of a compute kernel; empty: no cooperative matrices.
  std::vector<MatrixShape> matrices;

  /// Whether its memory is the host's.
  bool shares_host_memory() const {
    return type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU || type == VK_PHYSICAL_DEVICE_TYPE_CPU;
  }
};

Capabilities query_capabilities(const Instance &instance, VkPhysicalDevice device);

/// Why Freeport cannot use the device at all; "" where it can.
std::string unusable(const Capabilities &device);

/// Why the device cannot run code for `target` under these conditions; "" where it can. The conditions are those of
/// backends/vulkan/README.md; an unknown one is a reason.
std::string rejection(const Capabilities &device, std::string_view target, std::span<const char *const> conditions);

/// Whether pipelines can demand this subgroup size with all lanes present.
bool offers_subgroup_size(const Capabilities &device, uint32_t size);

void describe(const Capabilities &device, fp_device_description &description);

/// Creates the logical device with the features above, and one queue of `queue_family`.
Result<VkDevice> create_device(const Capabilities &capabilities);

/// The device that `selector` names: "" the best usable one, else an index, a UUID or part of a name (whatever the
/// case). kNotFound and kInvalidArgument say what there is; kUnsupported why the device cannot be used.
Result<Capabilities> select_device(std::span<const Capabilities> devices, std::string_view selector);

} // namespace freeport::vulkan
