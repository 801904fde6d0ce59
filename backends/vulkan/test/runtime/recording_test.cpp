// Launch programs: recorded once, replayed with other sizes, inside the limits that the device sets.
#include "backends/vulkan/test/runtime/fixture.h"

#include <chrono>
#include <cstdio>

namespace freeport::vulkan {
namespace {

using Recordings = VulkanTest;

TEST_F(Recordings, OneRecordingServesEverySize) {
  context().exact_windows = false;
  fp_memory *in = counting(1000, 1), *out = allocate(4000);
  fp_executable *executable = load(make_content(kScaleCode));
  // scale = symbol 0, count = symbol 1, both operands start at byte 4 * symbol 2.
  const fp_size bytes = size({{1, 2}, {0, 4}, {3, 0}});
  fp_recording *recording = record(
      executable,
      {dispatch(size({{1, 1}, {0, 32}, {4, 0}}), {at(in, 0, bytes), at(out, 0, bytes)}, {symbol(0), symbol(1)})});
  const Counters before = context().counters;
  EXPECT_EQ(before.recordings, 1u);
  for (const auto &[scale, count, first] : {std::tuple{3, 1, 0}, {5, 33, 7}, {-1, 500, 500}, {7, 0, 3}}) {
    ASSERT_EQ(replay(recording, {scale, count, first}), 0) << error.message;
    const std::vector<uint32_t> values = words(out, 1000);
    for (int i = first; i < first + count; ++i)
      ASSERT_EQ(values[size_t(i)], uint32_t(scale * (i + 1))) << i;
  }
  EXPECT_EQ(context().counters.recordings, before.recordings);
  EXPECT_EQ(context().counters.submissions, before.submissions + 4);
  EXPECT_EQ(context().counters.transfers, before.transfers);
  EXPECT_EQ(context().counters.allocations, before.allocations);
}

TEST_F(Recordings, OffsetsNeedNoAlignmentButThatOfWords) {
  fp_memory *in = counting(512), *out = allocate(2048);
  fp_executable *executable = load(make_content(kScaleCode));
  for (uint64_t offset : {4, 60, 68, 252, 1020}) {
    fp_recording *recording = record(
        executable, {dispatch(constant(1), {at(in, offset), at(out, offset, symbol(0))}, {constant(2), constant(32)})});
    ASSERT_EQ(replay(recording, {8}), 0) << error.message;
    const std::vector<uint32_t> values = words(out, 32, offset + 8);
    for (uint32_t i = 0; i < 32; ++i)
      ASSERT_EQ(values[i], 2 * (offset / 4 + i));
  }
}

TEST_F(Recordings, BarriersOrderDispatches) {
  fp_memory *a = counting(4096), *b = allocate(16384);
  fp_executable *executable = load(make_content(kScaleCode));
  std::vector<fp_command> commands;
  for (int i = 0; i < 10; ++i) {
    commands.push_back(dispatch(constant(128), {at(i % 2 ? b : a), at(i % 2 ? a : b)}, {constant(3), constant(4096)}));
    commands.push_back(barrier());
  }
  ASSERT_EQ(replay(record(executable, commands)), 0) << error.message;
  const std::vector<uint32_t> values = words(a, 4096);
  for (uint32_t i = 0; i < 4096; ++i)
    ASSERT_EQ(values[i], i * 59049);
}

TEST_F(Recordings, UnderTheValidationLayerDescriptorsShowWhatIsUsed) {
  if (!context().exact_windows)
    GTEST_SKIP() << "the validation layer is not installed";
  fp_memory *in = counting(1024), *arena = allocate(8192);
  fp_executable *executable = load(make_content(kScaleCode));
  // Halves of an arena, written by dispatches that may overlap: 4 * symbol 0 bytes each.
  const fp_size half = size({{1, 0}, {0, 4}, {3, 0}}), all = size({{1, 0}, {0, 8}, {3, 0}}),
                grid = size({{1, 0}, {0, 32}, {4, 0}});
  fp_recording *recording =
      record(executable, {dispatch(grid, {at(in), at(arena, 0, {nullptr, 0}, half)}, {constant(2), symbol(0)}),
                          dispatch(grid, {at(in), at(arena, 0, half, all)}, {constant(3), symbol(0)})});
  for (int64_t count : {64, 1024, 36}) {
    ASSERT_EQ(replay(recording, {count}), 0) << error.message;
    const std::vector<uint32_t> values = words(arena, size_t(2 * count));
    for (uint32_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(values[i], i < count ? 2 * i : 3 * (i - count)) << count;
  }
  EXPECT_EQ(context().counters.recordings, 3u);
}

TEST_F(Recordings, NothingToDoIsDone) {
  ASSERT_EQ(replay(record(load(make_content(kScaleCode)), {barrier()})), 0) << error.message;
  EXPECT_EQ(context().counters.submissions, 0u);
}

TEST_F(Recordings, PiecesOfAnArgumentAreDescriptorsOfItsOwn) {
  fp_memory *in = counting(4096), *out = allocate(384);
  fp_executable *executable = load(make_content(kPiecesCode, {{0, 256}, {8192, 256}, {512, 0}}));
  for (uint64_t offset : {0, 68}) {
    fp_recording *recording =
        record(executable, {dispatch(constant(3), {at(in, offset), at(out)}, {constant(1), constant(96)})});
    ASSERT_EQ(replay(recording), 0) << error.message;
    const std::vector<uint32_t> values = words(out, 96);
    const uint64_t starts[] = {0, 2048, 128};
    for (size_t i = 0; i < 96; ++i)
      ASSERT_EQ(values[i], starts[i / 32] + offset / 4 + i % 32) << i;
  }
  fp_recording *recording = nullptr;
  EXPECT_EQ(
      record(executable, {dispatch(constant(3), {at(in, 8192), at(out)}, {constant(1), constant(96)})}, &recording),
      FP_OUT_OF_RANGE);
  EXPECT_TRUE(says("expects 8192 bytes behind its start")) << error.message;
}

TEST_F(Recordings, RefusesWhatDoesNotFitTheKernel) {
  fp_memory *in = counting(64), *out = allocate(256);
  fp_executable *executable = load(make_content(kScaleCode));
  const fp_size one = constant(1);
  fp_recording *recording = nullptr;
  EXPECT_EQ(record(executable, {dispatch(one, {at(in)}, {one, one})}, &recording), FP_CORRUPT);
  EXPECT_TRUE(says("'scale' expects 2 memories and 2 scalars, got 1 and 2")) << error.message;
  EXPECT_EQ(record(executable, {dispatch(one, {at(in), at(out)}, {one})}, &recording), FP_CORRUPT);
  EXPECT_EQ(record(executable, {dispatch(one, {at(in), at(nullptr)}, {one, one})}, &recording), FP_INVALID_ARGUMENT);
  EXPECT_EQ(record(executable, {dispatch(one, {at(in, 257), at(out)}, {one, one})}, &recording), FP_OUT_OF_RANGE);
  fp_command unknown = dispatch(one, {at(in), at(out)}, {one, one});
  unknown.kernel = 1;
  EXPECT_EQ(record(executable, {unknown}, &recording), FP_INVALID_ARGUMENT);
}

TEST_F(Recordings, RefusesSizesBeyondTheLimitsBeforeAnythingRuns) {
  fp_memory *in = counting(64, 1), *out = allocate(256);
  fp_executable *executable = load(make_content(kScaleCode));
  const fp_size one = constant(1);
  fp_recording *recording =
      record(executable, {dispatch(one, {at(in), at(out)}, {constant(2), constant(32)}),
                          dispatch(symbol(0), {at(in), at(out, 0, symbol(1))}, {symbol(2), one})});
  const int64_t grid = context().capabilities.limits.maxComputeWorkGroupCount[0];
  EXPECT_EQ(replay(recording, {grid + 1, 0, 1}), FP_OUT_OF_RANGE);
  EXPECT_TRUE(says("expects a grid of 0 to")) << error.message;
  EXPECT_EQ(replay(recording, {-1, 0, 1}), FP_OUT_OF_RANGE);
  EXPECT_EQ(replay(recording, {1, 257, 1}), FP_OUT_OF_RANGE);
  EXPECT_TRUE(says("expects an offset of 0 to 256, got 257")) << error.message;
  EXPECT_EQ(replay(recording, {1, 0, int64_t(1) << 31}), FP_OUT_OF_RANGE);
  EXPECT_TRUE(says("expects 32 bits")) << error.message;
  EXPECT_EQ(replay(recording, {1, 0}), FP_CORRUPT);
  EXPECT_EQ(words(out, 64), std::vector<uint32_t>(64));
  EXPECT_EQ(replay(recording, {0, 0, 1}), 0) << error.message; // an empty grid
  EXPECT_EQ(words(out, 1)[0], 2u);
}

TEST_F(Recordings, MemoryBeyondTheBindingRangeNeedsAKnownEnd) {
  context().capabilities.limits.maxStorageBufferRange = 4096;
  fp_memory *in = counting(1 << 14), *out = allocate(256);
  fp_executable *executable = load(make_content(kScaleCode));
  const std::vector<fp_size> scalars = {constant(1), constant(32)};
  fp_recording *recording = nullptr;
  EXPECT_EQ(record(executable, {dispatch(constant(1), {at(in), at(out)}, scalars)}, &recording), FP_OUT_OF_RANGE);
  EXPECT_TRUE(says("exceeds the 4096 bytes that this device binds at once; use a smaller context")) << error.message;
  // A parameter of 128 bytes in the middle.
  recording =
      record(executable, {dispatch(constant(1), {at(in, 40000, {nullptr, 0}, constant(40128)), at(out)}, scalars)});
  ASSERT_EQ(replay(recording), 0) << error.message;
  EXPECT_EQ(words(out, 32)[31], 10031u);
  // A part whose end depends on the sizes, as in an arena.
  recording = record(executable, {dispatch(constant(1), {at(in, 0, symbol(0), symbol(1)), at(out)}, scalars)});
  ASSERT_EQ(replay(recording, {2048, 4096}), 0) << error.message;
  EXPECT_EQ(words(out, 1)[0], 512u);
  EXPECT_EQ(replay(recording, {2048, 4097}), FP_OUT_OF_RANGE);
  EXPECT_TRUE(says("uses 4097 bytes of a memory of which this device binds 4096 at once")) << error.message;
  // The last bytes need no known end.
  recording = record(executable, {dispatch(constant(1), {at(in, 65536 - 128), at(out)}, scalars)});
  ASSERT_EQ(replay(recording), 0) << error.message;
  EXPECT_EQ(words(out, 32)[31], 16383u);
}

TEST_F(Recordings, ReachesTheEndOfALargeMemory) {
  constexpr uint64_t kBytes = uint64_t(160) << 20; // more than lavapipe binds at once
  fp_memory *in = allocate(kBytes), *out = allocate(128);
  std::vector<uint32_t> values(32);
  std::iota(values.begin(), values.end(), 9);
  ASSERT_EQ(api->write(device, in, kBytes - 128, values.data(), 128, &error), 0) << error.message;
  fp_executable *executable = load(make_content(kScaleCode));
  ASSERT_EQ(
      replay(record(executable, {dispatch(constant(1), {at(in, kBytes - 128), at(out)}, {constant(1), constant(32)})})),
      0)
      << error.message;
  EXPECT_EQ(words(out, 32), values);
}

double waited;
PFN_vkWaitForFences wait_for_fences;
VKAPI_ATTR VkResult VKAPI_CALL timed_wait(VkDevice device, uint32_t count, const VkFence *fences, VkBool32 all,
                                          uint64_t timeout) {
  const auto start = std::chrono::steady_clock::now();
  const VkResult result = wait_for_fences(device, count, fences, all, timeout);
  waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

TEST_F(Recordings, TheHostTakesLessThanTwoMillisecondsForAStep) {
  context().exact_windows = false;
  fp_memory *a = counting(1024), *b = allocate(4096);
  fp_executable *executable = load(make_content(kScaleCode));
  std::vector<fp_command> commands;
  const fp_size grid = size({{1, 0}, {0, 32}, {4, 0}}), offset = size({{1, 0}, {0, 4}, {3, 0}, {0, 0}, {2, 0}});
  for (int i = 0; i < 200; ++i) {
    commands.push_back(
        dispatch(grid, {at(i % 2 ? b : a, 0, offset), at(i % 2 ? a : b, 0, offset)}, {constant(1), symbol(0)}));
    commands.push_back(barrier());
  }
  fp_recording *recording = record(executable, commands);
  ASSERT_EQ(replay(recording, {32}), 0) << error.message;
  wait_for_fences = context().vk.vkWaitForFences;
  context().vk.vkWaitForFences = timed_wait;
  double best = 1;
  for (int i = 0; i < 10; ++i) {
    waited = 0;
    const auto start = std::chrono::steady_clock::now();
    ASSERT_EQ(replay(recording, {32}), 0) << error.message;
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() - waited);
  }
  std::printf("200 dispatches: %.3f ms of host time outside the wait\n", best * 1e3);
  EXPECT_LT(best, 2e-3);
}

TEST_F(Recordings, MeasuresDispatchesOnDemand) {
  fp_memory *in = counting(4096), *out = allocate(16384);
  std::vector<fp_timing> times(3);
  size_t count = 0;
  fp_recording *recording =
      record(load(make_content(kScaleCode)), {dispatch(constant(1), {at(in), at(out)}, {constant(1), constant(1)})});
  EXPECT_EQ(api->timings(device, recording, times.data(), 3, &count, &error), FP_UNSUPPORTED);
  close();
  open(1);
  ASSERT_TRUE(device) << error.message;
  if (!context().capabilities.timestamps)
    GTEST_SKIP() << "the device has no timestamps";
  in = counting(4096), out = allocate(16384);
  const fp_command command = dispatch(constant(128), {at(in), at(out)}, {constant(1), constant(4096)});
  recording = record(load(make_content(kScaleCode)), {command, barrier(), command, barrier()});
  ASSERT_EQ(replay(recording), 0) << error.message;
  ASSERT_EQ(api->timings(device, recording, times.data(), 3, &count, &error), 0) << error.message;
  EXPECT_EQ(count, 2u);
  EXPECT_EQ(times[1].dispatch, 1u);
  EXPECT_LE(times[0].begin, times[0].end);
  EXPECT_EQ(times[0].end, times[1].begin);
  EXPECT_GT(times[1].end, 0u);
  EXPECT_LT(times[1].end, 10'000'000'000u);
}

} // namespace
} // namespace freeport::vulkan
