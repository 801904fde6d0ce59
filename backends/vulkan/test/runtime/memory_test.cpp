// Memory: the sub-allocator, the staging ring, host memory in place, and what happens when there is none.
#include "backends/vulkan/test/runtime/fixture.h"

#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace freeport::vulkan {
namespace {

using Memories = VulkanTest;

TEST_F(Memories, IsZeroedAndAligned) {
  for (uint64_t bytes : {0, 1, 4097, 20 << 20}) {
    fp_memory *memory = allocate(bytes);
    EXPECT_EQ(memory_of(memory)->slice.offset % 4096, 0u);
    EXPECT_GE(memory_of(memory)->slice.bytes, std::max<uint64_t>(bytes, 1));
    if (bytes >= 4)
      EXPECT_EQ(words(memory, bytes / 4), std::vector<uint32_t>(bytes / 4));
  }
}

TEST_F(Memories, SmallOnesShareBlocksAndHolesAreFilled) {
  MemoryPool &pool = device_of(device)->pool;
  const uint64_t before = context().counters.allocations;
  std::vector<Slice> slices;
  for (int i = 0; i < 100; ++i)
    slices.push_back(*pool.allocate(10000, Use::kernels));
  EXPECT_EQ(context().counters.allocations, before + 1);
  for (size_t i = 1; i < slices.size(); ++i)
    EXPECT_EQ(slices[i].offset, slices[i - 1].offset + 12288);
  for (size_t i : {10, 12, 11})
    pool.release(slices[i]);
  const Slice slice = *pool.allocate(3 * 12288, Use::kernels);
  EXPECT_EQ(slice.offset, slices[10].offset);
  pool.release(slice);
  for (size_t i = 0; i < slices.size(); ++i)
    if (i < 10 || i > 12)
      pool.release(slices[i]);
  const Slice again = *pool.allocate(1, Use::kernels);
  EXPECT_EQ(context().counters.allocations, before + 2); // the empty block was given back
  pool.release(again);
}

TEST_F(Memories, RefusesRangesOutside) {
  fp_memory *memory = allocate(100);
  char byte = 0;
  EXPECT_EQ(api->write(device, memory, 100, &byte, 1, &error), FP_OUT_OF_RANGE);
  EXPECT_EQ(api->read(device, &byte, memory, UINT64_MAX, 2, &error), FP_OUT_OF_RANGE);
  EXPECT_EQ(api->copy(device, memory, 0, memory, 8, 100, &error), FP_OUT_OF_RANGE);
  EXPECT_EQ(api->copy(device, memory, 8, memory, 0, 100, &error), FP_OUT_OF_RANGE);
}

TEST_F(Memories, StagingMovesWhatTheHostDoesNotSee) {
  constexpr size_t kCount = (20 << 20) / 4 + 3; // several staging buffers and a rest
  fp_memory *memory = allocate(kCount * 4), *other = allocate(kCount * 4);
  memory_of(memory)->slice.block->mapped = memory_of(other)->slice.block->mapped = nullptr;
  EXPECT_EQ(api->map(device, memory), nullptr);
  std::vector<uint32_t> values(kCount);
  std::iota(values.begin(), values.end(), 5);
  const uint64_t before = context().counters.transfers;
  ASSERT_EQ(api->write(device, memory, 0, values.data(), kCount * 4, &error), 0) << error.message;
  EXPECT_EQ(context().counters.transfers, before + 3);
  EXPECT_EQ(words(memory, kCount), values);
  EXPECT_EQ(words(memory, 10, 4000), std::vector<uint32_t>(values.begin() + 1000, values.begin() + 1010));
  ASSERT_EQ(api->copy(device, other, 8, memory, 0, kCount * 4 - 8, &error), 0) << error.message;
  EXPECT_EQ(words(other, kCount - 2, 8), std::vector<uint32_t>(values.begin(), values.end() - 2));
  ASSERT_EQ(api->copy(device, memory, 4, memory, 0, kCount * 4 - 4, &error), 0) << error.message; // they overlap
  EXPECT_EQ(words(memory, kCount - 1, 4), std::vector<uint32_t>(values.begin(), values.end() - 1));
  ASSERT_TRUE(device_of(device)->transfers.zero(memory_of(memory)->slice).ok());
  EXPECT_EQ(words(memory, kCount), std::vector<uint32_t>(kCount));
}

TEST_F(Memories, TooMuchIsAStatusAndTheDeviceGoesOn) {
  fp_memory *memory = nullptr;
  EXPECT_EQ(api->allocate(device, UINT64_MAX, &memory, &error), FP_OUT_OF_MEMORY);
  EXPECT_TRUE(says("in one piece of memory")) << error.message;
  // More than the heap in all.
  auto &heap = context().capabilities.memory.memoryHeaps[0];
  heap.size = 100 << 20;
  allocate(64 << 20);
  EXPECT_EQ(api->allocate(device, 64 << 20, &memory, &error), FP_OUT_OF_MEMORY);
  EXPECT_TRUE(says("free bytes of device memory")) << error.message;
  const PFN_vkAllocateMemory real = context().vk.vkAllocateMemory;
  context().vk.vkAllocateMemory = [](VkDevice, const VkMemoryAllocateInfo *, const VkAllocationCallbacks *,
                                     VkDeviceMemory *) { return VK_ERROR_OUT_OF_DEVICE_MEMORY; };
  EXPECT_EQ(api->allocate(device, 20 << 20, &memory, &error), FP_OUT_OF_MEMORY);
  EXPECT_TRUE(says("VK_ERROR_OUT_OF_DEVICE_MEMORY")) << error.message;
  context().vk.vkAllocateMemory = real;
  EXPECT_EQ(words(allocate(16 << 20), 1)[0], 0u);
}

/// A file of words 0, 1, 2, … that ends in the middle of a page, mapped for reading only.
class MappedFile {
public:
  explicit MappedFile(size_t count) : bytes(count * 4) {
    std::vector<uint32_t> values(count);
    std::iota(values.begin(), values.end(), 0);
    std::string path = testing::TempDir() + "vulkan-import.XXXXXX";
    const int file = ::mkstemp(path.data());
    ::unlink(path.c_str());
    EXPECT_EQ(::write(file, values.data(), bytes), ssize_t(bytes));
    data = static_cast<char *>(::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0));
    EXPECT_NE(data, MAP_FAILED);
    ::close(file);
  }
  ~MappedFile() { ::munmap(data, bytes); }
  size_t bytes;
  char *data;
};

TEST_F(Memories, HostMemoryIsUsedInPlace) {
  if (!context().capabilities.import_host || !context().capabilities.shares_host_memory())
    GTEST_SKIP() << "the device does not use host memory in place";
  const MappedFile file(10000);
  fp_memory *weights = nullptr;
  // From the middle of a page to the file's end.
  ASSERT_EQ(api->import_host(device, file.data + 64, file.bytes - 64, &weights, &error), 0) << error.message;
  keep(weights);
  EXPECT_EQ(context().counters.imports, 1u);
  EXPECT_EQ(api->map(device, weights), file.data + 64);
  EXPECT_EQ(words(weights, 1, file.bytes - 68)[0], 9999u);
  fp_memory *out = allocate(128);
  fp_executable *executable = load(make_content(kScaleCode));
  const std::vector<fp_size> scalars = {constant(3), constant(32)};
  for (uint64_t offset : {uint64_t(0), uint64_t(4), uint64_t(8192), file.bytes - 64 - 128}) {
    ASSERT_EQ(replay(record(executable, {dispatch(constant(1), {at(weights, offset), at(out)}, scalars)})), 0)
        << error.message;
    const std::vector<uint32_t> values = words(out, 32);
    for (uint32_t i = 0; i < 32; ++i)
      ASSERT_EQ(values[i], 3 * (16 + offset / 4 + i));
  }
  // It is only read.
  char byte = 0;
  fp_recording *recording = nullptr;
  EXPECT_EQ(api->write(device, weights, 0, &byte, 1, &error), FP_INVALID_ARGUMENT);
  EXPECT_EQ(record(executable, {dispatch(constant(1), {at(out), at(weights)}, scalars)}, &recording),
            FP_INVALID_ARGUMENT);
  EXPECT_TRUE(says("expects memory that it may write")) << error.message;
  close(); // before the file goes
}

TEST_F(Memories, ImportIsRefusedWhereTheDeviceCannot) {
  const MappedFile file(1000);
  fp_memory *memory = nullptr;
  context().capabilities.maximum_allocation = 4096; // the file and its pages' rest are one page
  EXPECT_EQ(api->import_host(device, file.data, file.bytes + 4096, &memory, &error), FP_UNSUPPORTED);
  context().capabilities.type = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU; // would read over the bus at every step
  EXPECT_EQ(api->import_host(device, file.data, file.bytes, &memory, &error), FP_UNSUPPORTED);
}

} // namespace
} // namespace freeport::vulkan
