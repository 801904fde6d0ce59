// What a package brings is checked before a driver sees it.
#include "backends/vulkan/runtime/spirv.h"
#include "backends/vulkan/test/runtime/fixture.h"

#include <algorithm>

namespace freeport::vulkan {
namespace {

using Executables = VulkanTest;

Capabilities plain_device() {
  Capabilities device;
  device.name = "plain";
  device.version = VK_API_VERSION_1_2;
  device.storage8 = true;
  device.array_indexing = true;
  device.limits.maxComputeWorkGroupInvocations = device.limits.maxComputeWorkGroupSize[1] = 128;
  return device;
}

std::string refusal(const std::vector<uint32_t> &code, uint32_t bindings = 3) {
  const Status status = check_spirv(code, bindings, plain_device());
  return status.ok() ? "accepted" : status.message();
}

/// The code with `word` instead of the one at `at`.
std::vector<uint32_t> with(size_t at, uint32_t word) {
  std::vector<uint32_t> code = kScaleCode;
  code[at] = word;
  return code;
}

/// Where the first instruction `op` starts.
size_t find(uint32_t op) {
  size_t at = 5;
  while ((kScaleCode[at] & 0xffff) != op)
    at += kScaleCode[at] >> 16;
  return at;
}

void expect_refusal(const std::vector<uint32_t> &code, const char *reason) {
  EXPECT_NE(refusal(code).find(reason), std::string::npos) << refusal(code);
}

TEST(SpirvCheck, AcceptsTheTestsKernels) {
  EXPECT_EQ(refusal(kScaleCode), "accepted");
  EXPECT_EQ(refusal(kPiecesCode), "accepted");
}

TEST(SpirvCheck, RefusesBadHeaders) {
  expect_refusal({}, "expects a header with the number 07230203, got 0 words");
  expect_refusal({kScaleCode.begin(), kScaleCode.begin() + 4}, "expects a header");
  expect_refusal(with(0, 0x03022307), "expects a header with the number 07230203");
  expect_refusal(with(1, 0x00010600), "expects version 1.0 to 1.5");
  expect_refusal(with(3, 0), "expects ids up to");
  expect_refusal(with(3, 0xffffffff), "expects ids up to");
}

TEST(SpirvCheck, RefusesInstructionsOutside) {
  expect_refusal(with(5, 0), "expects instructions inside");
  expect_refusal(with(5, 0xffff0011), "expects instructions inside");
  for (size_t size = 0; size < kScaleCode.size(); ++size)
    EXPECT_NE(refusal({kScaleCode.begin(), kScaleCode.begin() + ptrdiff_t(size)}), "accepted") << size;
}

TEST(SpirvCheck, RefusesOtherKernels) {
  expect_refusal(with(find(17) + 1, 5347), "needs capability 5347, which the device 'plain' does not offer");
  expect_refusal(with(find(15) + 1, 4), "expects one entry point, a compute kernel called main");
  expect_refusal(with(find(15) + 3, 0x6e69616e), "expects one entry point");
  expect_refusal(with(find(15) + 2, 1 << 20), "expects one entry point");
  for (auto [operand, size] : {std::pair{3, 64}, {4, 0}, {4, 9}, {5, 2}})
    expect_refusal(with(find(16) + operand, size), "expects a local size of 32 x 1 x 1 to 32 x 8 x 1");
  expect_refusal(with(find(16) + 4, 8), "needs 256 invocations in a workgroup, the device 'plain' allows 128");
  EXPECT_EQ(refusal(with(find(16) + 4, 4)), "accepted");
  expect_refusal(with(find(54) + 2, 2), "expects the capability Shader, an entry point");
  EXPECT_NE(refusal(kScaleCode, 2).find("expects bindings below 2, got 2"), std::string::npos);
}

TEST(SpirvCheck, AnyWordMayBeWrong) {
  size_t refused = 0;
  for (size_t i = 0; i < kScaleCode.size(); ++i)
    for (uint32_t flip : {1u, 0x80u, 0x10000u, 0x80000000u, 0xffffffffu})
      refused += refusal(with(i, kScaleCode[i] ^ flip)) != "accepted";
  EXPECT_GT(refused, kScaleCode.size()); // the rest changes meaning, not form
}

TEST_F(Executables, RefusesWhatIsNoExecutable) {
  fp_executable *executable = nullptr;
  const std::vector<char> good = make_content(kScaleCode);
  EXPECT_EQ(load(good, &executable, 2), FP_UNSUPPORTED);
  EXPECT_TRUE(says("expects version 1, got 2; compile the model again")) << error.message;
  EXPECT_EQ(load({}, &executable), FP_CORRUPT);
  for (size_t size = 0; size < 64; ++size)
    EXPECT_EQ(load({good.begin(), good.begin() + ptrdiff_t(size)}, &executable), FP_CORRUPT) << size;
  EXPECT_EQ(load(std::vector<char>(4096, '\x55'), &executable), FP_CORRUPT);
  const char *names[] = {"other"};
  EXPECT_EQ(api->load(device, good.data(), good.size(), 1, names, 1, &executable, &error), FP_CORRUPT);
  EXPECT_TRUE(says("expects a kernel 'other', got none of that name")) << error.message;
  EXPECT_EQ(load(make_content(with(0, 1)), &executable), FP_CORRUPT);
  EXPECT_TRUE(says("kernel 'scale': SPIR-V: expects a header")) << error.message;
  EXPECT_EQ(load(make_content(kScaleCode, {}), &executable), FP_CORRUPT);
  EXPECT_TRUE(says("expects a piece of memory for each argument")) << error.message;
  EXPECT_EQ(load(make_content(kScaleCode, {{128, 0}}), &executable), FP_CORRUPT);
  EXPECT_TRUE(says("expects pieces at multiples of 256 bytes")) << error.message;
  EXPECT_EQ(load(make_content(kScaleCode, {{0, 0}}, 1u << 31), &executable), FP_CORRUPT);
}

TEST_F(Executables, RefusesWhatTheDeviceLacks) {
  fp_executable *executable = nullptr;
  EXPECT_EQ(load(make_content(kPiecesCode, std::vector<PieceOf>(1 << 20)), &executable), FP_UNSUPPORTED);
  EXPECT_TRUE(says("expects 1048578 storage buffers")) << error.message;
  EXPECT_EQ(load(make_content(kScaleCode, {{}}, 2, 64), &executable), FP_UNSUPPORTED);
  EXPECT_TRUE(says("expects subgroups of 64 lanes")) << error.message;
  context().capabilities.array_indexing = false;
  EXPECT_EQ(load(make_content(kPiecesCode, {{}, {}, {}}), &executable), FP_UNSUPPORTED);
  EXPECT_TRUE(says("needs capability 30")) << error.message;
}

TEST_F(Executables, TakesARequiredSubgroupSize) {
  if (!context().capabilities.subgroup_control)
    GTEST_SKIP() << "the device has no subgroup size control";
  const uint32_t size = std::min(context().capabilities.largest_subgroup, 32u);
  fp_memory *in = counting(32), *out = allocate(128);
  fp_executable *executable = load(make_content(kScaleCode, {{}}, 2, size));
  ASSERT_EQ(replay(record(executable, {dispatch(constant(1), {at(in), at(out)}, {constant(2), constant(32)})})), 0)
      << error.message;
  EXPECT_EQ(words(out, 32)[31], 62u);
}

TEST_F(Executables, ADriverThatRefusesIsAStatus) {
  context().vk.vkCreateComputePipelines = [](VkDevice, VkPipelineCache, uint32_t, const VkComputePipelineCreateInfo *,
                                             const VkAllocationCallbacks *,
                                             VkPipeline *) { return VK_ERROR_OUT_OF_HOST_MEMORY; };
  fp_executable *executable = nullptr;
  EXPECT_EQ(load(make_content(kScaleCode), &executable), FP_OUT_OF_MEMORY);
  EXPECT_TRUE(says("compiling kernels: memory is exhausted")) << error.message;
  EXPECT_TRUE(says("(kernel 'scale')")) << error.message;
}

} // namespace
} // namespace freeport::vulkan
