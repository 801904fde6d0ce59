// Selection, conditions, the cache on disk, and devices that get lost.
#include "backends/vulkan/test/runtime/fixture.h"

#include <cstring>
#include <filesystem>
#include <fstream>

namespace freeport::vulkan {
namespace {

using Devices = VulkanTest;

Capabilities device_called(const char *name, VkPhysicalDeviceType type, const char *uuid) {
  Capabilities device;
  device.name = name;
  device.type = type;
  device.uuid = uuid;
  device.version = VK_API_VERSION_1_3;
  device.queue_family = 0;
  device.storage8 = true;
  return device;
}

std::vector<Capabilities> some_devices() {
  return {device_called("Soft Pipe", VK_PHYSICAL_DEVICE_TYPE_CPU, "00000000-0000-0000-0000-00000000000a"),
          device_called("Radiant 610M", VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, "00000000-0000-0000-0000-00000000000b"),
          device_called("Radiant RX", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, "00000000-0000-0000-0000-00000000000c"),
          device_called("Radiant RX", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU, "00000000-0000-0000-0000-00000000000d")};
}

std::string chosen(std::string_view selector, const std::vector<Capabilities> &devices = some_devices()) {
  auto device = select_device(devices, selector);
  return device.ok() ? device->uuid.substr(35) : device.status().message();
}

TEST(Selection, ByRankIndexNameAndUuid) {
  EXPECT_EQ(chosen(""), "c");
  EXPECT_EQ(chosen("0"), "a");
  EXPECT_EQ(chosen("3"), "d");
  EXPECT_EQ(chosen("soft"), "a");
  EXPECT_EQ(chosen("RADIANT 6"), "b");
  EXPECT_EQ(chosen("00000000-0000-0000-0000-00000000000D"), "d");
  EXPECT_EQ(chosen("0000000000000000000000000000000c"), "c");
}

TEST(Selection, RefusesWithWhatThereIs) {
  EXPECT_EQ(chosen("4"), "vulkan: expects the index, UUID or part of the name of a device among 0 (Soft Pipe), 1 "
                         "(Radiant 610M), 2 (Radiant RX), 3 (Radiant RX); got '4'");
  EXPECT_NE(chosen("Voodoo").find("got 'Voodoo'"), std::string::npos);
  EXPECT_NE(chosen("rx").find("'rx' fits 2 of 0 (Soft Pipe)"), std::string::npos) << chosen("rx");
  std::vector<Capabilities> devices = some_devices();
  devices[2].storage8 = devices[3].storage8 = false;
  EXPECT_EQ(chosen("", devices), "b");
  EXPECT_EQ(chosen("2", devices),
            "vulkan: Radiant RX: expects 8-bit storage buffers (storageBuffer8BitAccess), got none");
  devices = {devices[2]};
  devices[0].version = VK_API_VERSION_1_1;
  EXPECT_EQ(chosen("", devices),
            "vulkan: expects a usable device, got none; Radiant RX: expects Vulkan 1.2 or newer, got 1.1.0");
}

TEST(Conditions, EachHasItsReason) {
  Capabilities device = some_devices()[2];
  device.subgroup_control = true;
  device.subgroup = VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_BALLOT_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
  device.smallest_subgroup = 16, device.largest_subgroup = 64;
  device.limits.maxComputeSharedMemorySize = 32768;
  device.limits.maxPerStageDescriptorStorageBuffers = device.limits.maxDescriptorSetStorageBuffers = 32;
  device.limits.maxPerStageResources = 100;
  auto reason = [&](const char *condition) { return rejection(device, "spirv-1.5", {&condition, 1}); };
  for (const char *condition :
       {"vulkan1.2", "storage8", "subgroup16", "subgroup32", "shared:32768", "storage_buffers:32"})
    EXPECT_EQ(reason(condition), "");
  EXPECT_EQ(reason("storage16"), "expects 16-bit storage buffers (storageBuffer16BitAccess)");
  EXPECT_EQ(reason("integer_dot"), "expects integer dot products (shaderIntegerDotProduct)");
  EXPECT_EQ(reason("rte32"), "expects rounding to nearest even for f32 (shaderRoundingModeRTEFloat32)");
  EXPECT_EQ(reason("preserve32"), "expects the sign of zero to be kept (shaderSignedZeroInfNanPreserveFloat32)");
  EXPECT_EQ(reason("array_indexing"), "expects indexing of buffer arrays (shaderStorageBufferArrayDynamicIndexing)");
  EXPECT_EQ(reason("subgroup8"), "expects subgroups of 8 lanes on demand, the device offers 16 to 64");
  EXPECT_EQ(reason("subgroup64"), "expects subgroups of 64 lanes on demand, the device offers 16 to 64");
  EXPECT_EQ(reason("shared:32769"), "expects 32769 bytes of shared memory, the device has 32768");
  EXPECT_EQ(reason("storage_buffers:33"), "expects 33 storage buffers in a kernel, the device allows 32");
  EXPECT_EQ(reason("levitation"), "knows no condition 'levitation'; update Freeport");
  EXPECT_EQ(reason("shared:"), "knows no condition 'shared:'; update Freeport");
  EXPECT_EQ(reason("shared:99999999999999999999"), "knows no condition 'shared:99999999999999999999'; update Freeport");
  EXPECT_EQ(rejection(device, "spirv-1.6", {}), "");
  EXPECT_EQ(rejection(device, "spirv-1.7", {}),
            "expects SPIR-V 1.5 or 1.6 (target spirv-1.5 or spirv-1.6), got target 'spirv-1.7'");
  EXPECT_EQ(reason("memory_model"), "expects Vulkan's memory model (vulkanMemoryModel)");
  EXPECT_EQ(reason("cooperative_matrix:16x16x32"),
            "expects cooperative matrices of signed bytes of 16x16x32, the device offers none");
  device.matrices = {{16, 16, 16}, {16, 16, 32}};
  EXPECT_EQ(reason("cooperative_matrix:16x16x32"), "");
  EXPECT_EQ(reason("cooperative_matrix:16x8x32"),
            "expects cooperative matrices of signed bytes of 16x8x32, the device offers others");
  EXPECT_EQ(reason("cooperative_matrix:"),
            "expects cooperative matrices of signed bytes of , the device offers others");
  device.limits.maxComputeWorkGroupInvocations = 128, device.limits.maxComputeWorkGroupSize[1] = 128;
  EXPECT_EQ(reason("invocations:128"), "");
  EXPECT_EQ(reason("invocations:256"), "expects 256 invocations in a workgroup, the device allows 128");
  device.limits.maxComputeWorkGroupSize[1] = 2;
  EXPECT_EQ(reason("invocations:128"), "expects 128 invocations in a workgroup, the device allows 64");
  device.subgroup = VK_SUBGROUP_FEATURE_BASIC_BIT;
  EXPECT_EQ(reason("subgroup16"), "expects basic, ballot and shuffle operations of subgroups in compute kernels");
}

TEST_F(Devices, AreListedAndOpenedByEverySelector) {
  fp_device_description description = {};
  for (uint32_t index = 0; api->enumerate(index, &description, &error) == 0; ++index) {
    if (*description.reason)
      continue;
    EXPECT_STRNE(description.name, "");
    EXPECT_STRNE(description.driver, "");
    EXPECT_GT(description.memory_bytes, 0u);
    for (const std::string &selector : {std::to_string(index), std::string(description.uuid)}) {
      const fp_device_options options = {selector.c_str(), 0, 0};
      fp_device *opened = nullptr;
      ASSERT_EQ(api->open(&options, &opened, &error), 0) << error.message;
      fp_device_description again = {};
      api->describe(opened, &again);
      EXPECT_STREQ(again.name, description.name);
      EXPECT_EQ(api->rejects(opened, "spirv-1.5", nullptr, 0), nullptr);
      EXPECT_STREQ(api->rejects(opened, "x86-64-v3", nullptr, 0),
                   "expects SPIR-V 1.5 or 1.6 (target spirv-1.5 or spirv-1.6), got target 'x86-64-v3'");
      api->close(opened);
    }
  }
  const fp_device_options options = {"999", 0, 0};
  fp_device *opened = nullptr;
  EXPECT_EQ(api->open(&options, &opened, &error), FP_NOT_FOUND);
}

TEST_F(Devices, ALostDeviceIsAStatusEverywhereAndAnotherOpens) {
  fp_memory *in = counting(32), *out = allocate(128);
  fp_executable *executable = load(make_content(kScaleCode));
  const fp_command command = dispatch(constant(1), {at(in), at(out)}, {constant(2), constant(32)});
  fp_recording *recording = record(executable, {command});
  context().vk.vkQueueSubmit = [](VkQueue, uint32_t, const VkSubmitInfo *, VkFence) { return VK_ERROR_DEVICE_LOST; };
  EXPECT_EQ(replay(recording), FP_IO);
  EXPECT_TRUE(says("the device was lost (VK_ERROR_DEVICE_LOST)")) << error.message;
  EXPECT_TRUE(says("--device cpu")) << error.message;
  fp_memory *memory = nullptr;
  fp_recording *other = nullptr;
  uint32_t word = 0;
  EXPECT_EQ(replay(recording), FP_IO);
  EXPECT_EQ(api->allocate(device, 16, &memory, &error), FP_IO);
  EXPECT_EQ(api->write(device, in, 0, &word, 4, &error), FP_IO);
  EXPECT_EQ(api->read(device, &word, in, 0, 4, &error), FP_IO);
  EXPECT_EQ(api->copy(device, out, 0, in, 0, 4, &error), FP_IO);
  EXPECT_EQ(record(executable, {command}, &other), FP_IO);
  close();
  open(0);
  ASSERT_TRUE(device) << error.message;
  in = counting(32), out = allocate(128);
  executable = load(make_content(kScaleCode));
  ASSERT_EQ(replay(record(executable, {dispatch(constant(1), {at(in), at(out)}, {constant(2), constant(32)})})), 0)
      << error.message;
  EXPECT_EQ(words(out, 32)[31], 62u);
}

TEST_F(Devices, LossInMidStepIsFoundByTheWait) {
  fp_memory *in = counting(32), *out = allocate(128);
  fp_recording *recording =
      record(load(make_content(kScaleCode)), {dispatch(constant(1), {at(in), at(out)}, {constant(2), constant(32)})});
  static PFN_vkWaitForFences real;
  real = context().vk.vkWaitForFences;
  context().vk.vkWaitForFences = [](VkDevice device, uint32_t count, const VkFence *fences, VkBool32 all,
                                    uint64_t time) {
    (void)real(device, count, fences, all, time); // so that nothing is destroyed while it runs
    return VK_ERROR_DEVICE_LOST;
  };
  EXPECT_EQ(replay(recording), FP_IO);
  context().vk.vkWaitForFences = real;
  EXPECT_EQ(replay(recording), FP_IO);
}

TEST_F(Devices, KeepCompiledPipelinesOnDisk) {
  const std::string path = device_of(device)->cache.path();
  ASSERT_FALSE(path.empty());
  std::filesystem::remove(path);
  // Stands for drivers that keep something; lavapipe keeps nothing. Drivers ignore data whose header is not theirs.
  context().vk.vkGetPipelineCacheData = [](VkDevice, VkPipelineCache, size_t *bytes, void *data) {
    *bytes = 100;
    if (data)
      std::memset(data, 7, 100);
    return VK_SUCCESS;
  };
  load(make_content(kScaleCode));
  EXPECT_EQ(std::filesystem::file_size(path), 48u + 100u);
  close();
  open(0);
  EXPECT_TRUE(device_of(device)->cache.was_read());
  close();
  // Damaged, cut or foreign files are no cache, and nothing else.
  std::ifstream stream(path, std::ios::binary);
  const std::string good(std::istreambuf_iterator<char>(stream), {});
  for (const std::string &bad : {std::string(), good.substr(0, 20), good.substr(0, good.size() - 1), good + "x",
                                 "x" + good.substr(1), good.substr(0, good.size() - 1) + char(good.back() ^ 1)}) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bad;
    open(0);
    ASSERT_TRUE(device) << error.message;
    EXPECT_FALSE(device_of(device)->cache.was_read());
    close();
  }
  open(0);
}

} // namespace
} // namespace freeport::vulkan
