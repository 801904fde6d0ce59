// The shared half of host devices under a backend of one kernel: memory, expressions, order of phases, and a team under
// stress.
#include "runtime/host_device.h"
#include "runtime/size.h"
#include "runtime/team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <vector>

namespace freeport {
namespace {

constexpr int kConstant = 0, kSymbol = 1, kAdd = 2, kMultiply = 3, kCeilDivide = 4, kFloorDivide = 5;

fp_size size_of(const std::vector<fp_size_instruction> &code) { return {code.data(), code.size()}; }

TEST(Size, EvaluatesAPolynomialWithCeilingDivision) {
  const std::vector<fp_size_instruction> code = {{kSymbol, 1},   {kConstant, 32}, {kCeilDivide, 0}, {kSymbol, 0},
                                                 {kMultiply, 0}, {kConstant, 7},  {kAdd, 0}};
  const int64_t symbols[] = {3, 33};
  ASSERT_TRUE(verify_size(size_of(code), 2).ok());
  auto value = evaluate_size(size_of(code), symbols);
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(*value, 13);
}

TEST(Size, RefusesWhatIsMalformed) {
  EXPECT_EQ(verify_size(size_of({{kSymbol, 2}}), 2).code(), Code::kCorrupt);
  EXPECT_EQ(verify_size(size_of({{kSymbol, -1}}), 2).code(), Code::kCorrupt);
  EXPECT_EQ(verify_size(size_of({{kAdd, 0}}), 2).code(), Code::kCorrupt);
  EXPECT_EQ(verify_size(size_of({{99, 0}}), 2).code(), Code::kCorrupt);
  EXPECT_EQ(verify_size(size_of({{kConstant, 1}, {kConstant, 1}}), 2).code(), Code::kCorrupt);
  EXPECT_EQ(verify_size(size_of(std::vector<fp_size_instruction>(kSizeStack + 1, {kConstant, 1})), 0).code(),
            Code::kCorrupt);
}

TEST(Size, RefusesOverflowAndDivisionByZero) {
  const std::vector<std::vector<fp_size_instruction>> codes = {
      {{kConstant, INT64_MAX}, {kConstant, 1}, {kAdd, 0}},
      {{kConstant, INT64_MAX}, {kConstant, 2}, {kMultiply, 0}},
      {{kConstant, 1}, {kConstant, 0}, {kCeilDivide, 0}},
      {{kConstant, INT64_MIN}, {kConstant, -1}, {kFloorDivide, 0}}};
  for (const auto &code : codes)
    EXPECT_EQ(evaluate_size(size_of(code), {}).status().code(), Code::kOutOfRange);
}

TEST(Team, RunsEveryChunkOnceInEveryCall) {
  for (int threads : {1, 2, 3, 16}) {
    Team team(threads);
    std::vector<std::atomic<uint32_t>> counts(97);
    for (uint32_t call = 1; call <= 3000; ++call) {
      const uint32_t chunks = 1 + call % 97;
      for (auto &count : counts)
        count.store(0, std::memory_order_relaxed);
      team.run(
          chunks,
          [](void *context, uint32_t chunk) {
            (*static_cast<std::vector<std::atomic<uint32_t>> *>(context))[chunk].fetch_add(1,
                                                                                           std::memory_order_relaxed);
          },
          &counts);
      for (uint32_t i = 0; i < counts.size(); ++i)
        ASSERT_EQ(counts[i].load(), i < chunks ? 1u : 0u) << "threads " << threads << ", call " << call;
    }
  }
}

/// Kernel 0 adds its scalar to each int64 of its binding, one per program, and notes the binding's bytes.
class AddExecutable : public HostExecutable {
public:
  static inline std::atomic<uint64_t> readable, writable;

  Status check(uint32_t, size_t bindings, size_t scalars) const override {
    return bindings == 1 && scalars == 1 ? Status() : Status(Code::kCorrupt, "add: expects one of each");
  }
  void run(uint32_t, const HostDispatch &dispatch, int64_t first, int64_t last) const override {
    readable = dispatch.readable[0];
    writable = dispatch.writable[0];
    if (writable == 0)
      return;
    auto *values = static_cast<int64_t *>(dispatch.bindings[0]);
    for (int64_t i = first; i < last; ++i)
      values[i] = values[i] * 3 + dispatch.scalars[0];
  }
};

struct AddTraits {
  static constexpr const char *name = "add";
  static const char *rejects(const char *, const char *const *, size_t) { return nullptr; }
  static Result<std::unique_ptr<HostExecutable>> load(std::span<const std::byte> content, uint32_t,
                                                      std::span<const char *const>) {
    if (content.empty())
      return Status(Code::kCorrupt, "add: expects content");
    return std::unique_ptr<HostExecutable>(new AddExecutable);
  }
};

class HostDevice : public testing::TestWithParam<int> {
protected:
  void SetUp() override {
    const fp_device_options options{"", GetParam(), 0};
    ASSERT_EQ(api->open(&options, &device, &error), 0);
    const char *const names[] = {"add"};
    ASSERT_EQ(api->load(device, "x", 1, 1, names, 1, &executable, &error), 0);
    ASSERT_EQ(api->allocate(device, 1001 * 8, &memory, &error), 0);
  }
  void TearDown() override {
    api->release(device, memory);
    api->unload(device, executable);
    api->close(device);
  }
  const fp_device_api *api = host_device_api<AddTraits>();
  fp_device *device = nullptr;
  fp_executable *executable = nullptr;
  fp_memory *memory = nullptr;
  fp_error error{};
};

TEST_P(HostDevice, ReplaysInOrderAcrossBarriers) {
  const std::vector<fp_size_instruction> one = {{kConstant, 1}}, rows = {{kSymbol, 0}}, scalar = {{kSymbol, 1}};
  const fp_size scalars[] = {size_of(scalar)};
  const fp_binding bindings[] = {{memory, 8, {nullptr, 0}, {nullptr, 0}}};
  fp_command dispatch{};
  dispatch.kind = FP_COMMAND_DISPATCH;
  dispatch.grid[0] = size_of(rows);
  dispatch.grid[1] = dispatch.grid[2] = size_of(one);
  dispatch.bindings = bindings;
  dispatch.binding_count = 1;
  dispatch.scalars = scalars;
  dispatch.scalar_count = 1;
  fp_command barrier{};
  barrier.kind = FP_COMMAND_BARRIER;
  const fp_command commands[] = {dispatch, barrier, dispatch, barrier};
  fp_recording *recording = nullptr;
  ASSERT_EQ(api->record(device, executable, commands, 4, &recording, &error), 0);
  const int64_t symbols[] = {999, 5};
  for (int i = 0; i < 2; ++i)
    ASSERT_EQ(api->replay(device, recording, symbols, 2, &error), 0) << error.message;
  const auto *values = static_cast<const int64_t *>(api->map(device, memory));
  EXPECT_EQ(values[0], 0);
  for (int i = 1; i <= 999; ++i)
    ASSERT_EQ(values[i], 5 * (1 + 3 + 9 + 27)) << i;
  EXPECT_EQ(values[1000], 0);
  const int64_t too_many[] = {int64_t(1) << 41, 5};
  EXPECT_EQ(api->replay(device, recording, too_many, 2, &error), int32_t(Code::kOutOfRange));
  api->erase(device, recording);
}

TEST_P(HostDevice, RefusesRangesOutsideMemory) {
  char byte = 0;
  EXPECT_EQ(api->write(device, memory, 1001 * 8, &byte, 1, &error), int32_t(Code::kOutOfRange));
  EXPECT_EQ(api->read(device, &byte, memory, UINT64_MAX, 2, &error), int32_t(Code::kOutOfRange));
  EXPECT_EQ(api->copy(device, memory, 0, memory, 8, 1001 * 8, &error), int32_t(Code::kOutOfRange));
  fp_memory *huge = nullptr;
  EXPECT_EQ(api->allocate(device, UINT64_MAX, &huge, &error), int32_t(Code::kOutOfMemory));
  fp_command command{};
  command.kernel = 1;
  fp_recording *recording = nullptr;
  EXPECT_EQ(api->record(device, executable, &command, 1, &recording, &error), int32_t(Code::kInvalidArgument));
}

TEST_P(HostDevice, TellsTheBytesBehindABinding) {
  const char weights[64] = {};
  fp_memory *imported = nullptr;
  ASSERT_EQ(api->import_host(device, weights, sizeof weights, &imported, &error), 0);
  const std::vector<fp_size_instruction> one = {{kConstant, 1}}, start = {{kSymbol, 0}};
  const fp_size scalars[] = {size_of(one)};
  struct Case {
    fp_memory *memory;
    uint64_t bytes;
    bool writable;
  };
  for (const Case &each : {Case{memory, 1001 * 8, true}, Case{imported, 64, false}}) {
    const fp_binding bindings[] = {{each.memory, 8, size_of(start), {nullptr, 0}}};
    fp_command command{};
    std::fill_n(command.grid, 3, size_of(one));
    command.bindings = bindings;
    command.binding_count = 1;
    command.scalars = scalars;
    command.scalar_count = 1;
    fp_recording *recording = nullptr;
    ASSERT_EQ(api->record(device, executable, &command, 1, &recording, &error), 0) << error.message;
    for (int64_t at : {0, 24}) {
      ASSERT_EQ(api->replay(device, recording, &at, 1, &error), 0) << error.message;
      EXPECT_EQ(AddExecutable::readable, each.bytes - 8 - at);
      EXPECT_EQ(AddExecutable::writable, each.writable ? each.bytes - 8 - at : 0);
    }
    api->erase(device, recording);
  }
  // The host itself does not write there either.
  char byte = 1;
  EXPECT_EQ(api->write(device, imported, 0, &byte, 1, &error), int32_t(Code::kInvalidArgument));
  EXPECT_EQ(api->copy(device, imported, 0, memory, 0, 8, &error), int32_t(Code::kInvalidArgument));
  EXPECT_EQ(api->copy(device, memory, 0, imported, 0, 8, &error), 0);
  api->release(device, imported);
}

TEST_P(HostDevice, RefusesOtherCountsOfOperands) {
  const std::vector<fp_size_instruction> one = {{kConstant, 1}};
  const fp_size scalars[] = {size_of(one), size_of(one)};
  const fp_binding bindings[] = {{memory, 0, {nullptr, 0}, {nullptr, 0}}, {memory, 0, {nullptr, 0}, {nullptr, 0}}};
  for (size_t count = 0; count <= 2; ++count)
    for (size_t scalar_count = 0; scalar_count <= 2; ++scalar_count) {
      fp_command command{};
      std::fill_n(command.grid, 3, size_of(one));
      command.bindings = bindings;
      command.binding_count = count;
      command.scalars = scalars;
      command.scalar_count = scalar_count;
      fp_recording *recording = nullptr;
      const bool fits = count == 1 && scalar_count == 1;
      EXPECT_EQ(api->record(device, executable, &command, 1, &recording, &error), fits ? 0 : int32_t(Code::kCorrupt));
      if (fits)
        api->erase(device, recording);
      else
        EXPECT_STREQ(error.message, "add: expects one of each");
    }
}

INSTANTIATE_TEST_SUITE_P(Threads, HostDevice, testing::Values(1, 2, 8));

} // namespace
} // namespace freeport
