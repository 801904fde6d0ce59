// A device under the validation layer, and launch programs in few words. Tests are skipped where there is no device,
// and fail where the layer has something to say.
#pragma once

#include "backends/vulkan/executable_generated.h"
#include "backends/vulkan/runtime/device.h"
#include "backends/vulkan/test/runtime/kernels.h"
#include "runtime/package_generated.h"
#include "runtime/registry.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <filesystem>
#include <numeric>

namespace freeport::vulkan {

/// The first usable device with the validation layer where it is installed; why there is none as a Status.
inline Result<const Instance *> test_instance() {
  ::setenv("FREEPORT_VULKAN_VALIDATION", "1", 1);
  auto instance = Instance::get();
  if (!instance.ok()) {
    ::unsetenv("FREEPORT_VULKAN_VALIDATION");
    instance = Instance::get();
  }
  return instance;
}

struct PieceOf {
  uint64_t offset = 0, bytes = 0;
};

/// An executable of one kernel whose first argument has `pieces` and whose second is written.
inline std::vector<char> make_content(const std::vector<uint32_t> &code, const std::vector<PieceOf> &pieces = {{}},
                                      uint32_t scalars = 2, uint32_t subgroup = 0) {
  flatbuffers::FlatBufferBuilder builder;
  auto argument = [&](const std::vector<PieceOf> &from, bool written) {
    std::vector<Piece> made;
    for (const PieceOf &piece : from)
      made.emplace_back(piece.offset, piece.bytes);
    return CreateArgumentDirect(builder, &made, written);
  };
  std::vector<flatbuffers::Offset<Argument>> arguments = {argument(pieces, false), argument({{}}, true)};
  std::vector<flatbuffers::Offset<Kernel>> kernels = {
      CreateKernelDirect(builder, "scale", &code, &arguments, scalars, subgroup)};
  FinishModuleBuffer(builder, CreateModuleDirect(builder, &kernels));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

class VulkanTest : public testing::Test {
protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "freeport-vulkan-XXXXXX").string();
    ASSERT_TRUE(::mkdtemp(name.data()));
    folder_ = name;
    ::setenv("XDG_CACHE_HOME", name.c_str(), 1); // of its own: other processes may run the same tests at once
    messages_ = validation_messages();
    const auto instance = test_instance();
    if (!instance.ok())
      GTEST_SKIP() << instance.status().message();
    open(0);
    if (!device)
      GTEST_SKIP() << error.message;
  }

  void TearDown() override {
    if (device)
      close();
    std::filesystem::remove_all(folder_);
    EXPECT_EQ(validation_messages(), messages_) << "the validation layer reports errors, see above";
  }

  void open(int32_t timings) {
    const fp_device_options options = {"", 0, timings};
    (void)api->open(&options, &device, &error);
  }

  void close() {
    for (fp_recording *recording : recordings_)
      api->erase(device, recording);
    for (fp_executable *executable : executables_)
      api->unload(device, executable);
    for (fp_memory *memory : memories_)
      api->release(device, memory);
    recordings_.clear(), executables_.clear(), memories_.clear();
    api->close(device);
    device = nullptr;
  }

  Context &context() { return *device_of(device)->context; }

  /// Releases the memory at the end of the test.
  void keep(fp_memory *memory) { memories_.push_back(memory); }

  fp_memory *allocate(uint64_t bytes) {
    fp_memory *memory = nullptr;
    EXPECT_EQ(api->allocate(device, bytes, &memory, &error), 0) << error.message;
    keep(memory);
    return memory;
  }

  /// Memory of `count` words first, first + 1, ….
  fp_memory *counting(size_t count, uint32_t first = 0) {
    std::vector<uint32_t> values(count);
    std::iota(values.begin(), values.end(), first);
    fp_memory *memory = allocate(count * 4);
    EXPECT_EQ(api->write(device, memory, 0, values.data(), count * 4, &error), 0) << error.message;
    return memory;
  }

  std::vector<uint32_t> words(fp_memory *memory, size_t count, uint64_t offset = 0) {
    std::vector<uint32_t> values(count);
    EXPECT_EQ(api->read(device, values.data(), memory, offset, count * 4, &error), 0) << error.message;
    return values;
  }

  int32_t load(const std::vector<char> &content, fp_executable **executable, uint32_t version = 1) {
    const char *names[] = {"scale"};
    const int32_t code = api->load(device, content.data(), content.size(), version, names, 1, executable, &error);
    if (!code)
      executables_.push_back(*executable);
    return code;
  }

  fp_executable *load(const std::vector<char> &content) {
    contents_.push_back(content);
    fp_executable *executable = nullptr;
    EXPECT_EQ(load(contents_.back(), &executable), 0) << error.message;
    return executable;
  }

  fp_size size(std::vector<fp_size_instruction> code) {
    sizes_.push_back(std::move(code));
    return {sizes_.back().data(), sizes_.back().size()};
  }
  fp_size constant(int64_t value) { return size({{int32_t(package::SizeOpcode::constant), value}}); }
  fp_size symbol(int64_t index) { return size({{int32_t(package::SizeOpcode::symbol), index}}); }

  fp_command dispatch(fp_size x, std::vector<fp_binding> bindings, std::vector<fp_size> scalars) {
    bindings_.push_back(std::move(bindings));
    scalars_.push_back(std::move(scalars));
    fp_command command = {};
    command.kind = FP_COMMAND_DISPATCH;
    command.grid[0] = x;
    command.grid[1] = command.grid[2] = constant(1);
    command.bindings = bindings_.back().data();
    command.binding_count = bindings_.back().size();
    command.scalars = scalars_.back().data();
    command.scalar_count = scalars_.back().size();
    return command;
  }
  static fp_command barrier() {
    fp_command command = {};
    command.kind = FP_COMMAND_BARRIER;
    return command;
  }
  static fp_binding at(fp_memory *memory, uint64_t memory_offset = 0, fp_size offset = {nullptr, 0},
                       fp_size end = {nullptr, 0}) {
    return {memory, memory_offset, offset, end};
  }

  int32_t record(fp_executable *executable, const std::vector<fp_command> &commands, fp_recording **recording) {
    const int32_t code = api->record(device, executable, commands.data(), commands.size(), recording, &error);
    if (!code)
      recordings_.push_back(*recording);
    return code;
  }
  fp_recording *record(fp_executable *executable, const std::vector<fp_command> &commands) {
    fp_recording *recording = nullptr;
    EXPECT_EQ(record(executable, commands, &recording), 0) << error.message;
    return recording;
  }
  int32_t replay(fp_recording *recording, const std::vector<int64_t> &symbols = {}) {
    return api->replay(device, recording, symbols.data(), symbols.size(), &error);
  }

  bool says(const char *text) const { return std::string_view(error.message).find(text) != std::string_view::npos; }

  const fp_device_api *api = find_device_api("vulkan");
  fp_device *device = nullptr;
  fp_error error = {};

private:
  uint64_t messages_ = 0;
  std::filesystem::path folder_; ///< for the cache of pipelines
  std::vector<fp_memory *> memories_;
  std::vector<fp_executable *> executables_;
  std::vector<fp_recording *> recordings_;
  std::deque<std::vector<char>> contents_;
  std::deque<std::vector<fp_size_instruction>> sizes_;
  std::deque<std::vector<fp_binding>> bindings_;
  std::deque<std::vector<fp_size>> scalars_;
};

} // namespace freeport::vulkan
