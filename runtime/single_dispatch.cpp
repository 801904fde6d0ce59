#include "runtime/single_dispatch.h"

#include "runtime/package_generated.h"

namespace freeport {
namespace {

/// What a dispatch holds on a device, given back at the end.
struct Held {
  const fp_device_api &api;
  fp_device *device;
  std::vector<fp_memory *> memories;
  fp_recording *recording = nullptr;

  ~Held() {
    if (recording)
      api.erase(device, recording);
    for (fp_memory *memory : memories)
      api.release(device, memory);
  }
};

} // namespace

Status run_single_dispatch(const fp_device_api &api, fp_device *device, fp_executable *executable, uint32_t kernel,
                           std::vector<std::vector<std::byte>> &buffers, std::span<const int64_t> scalars,
                           std::array<int64_t, 3> grid) {
  fp_error error = {};
  auto failure = [&](const char *stage) {
    return Status(Code(error.code), std::string(api.name) + ": " + stage + ": " + error.message);
  };
  Held held{api, device, {}};
  std::vector<fp_binding> bindings;
  for (const std::vector<std::byte> &buffer : buffers) {
    fp_memory *memory = nullptr;
    if (api.allocate(device, buffer.size(), &memory, &error))
      return failure("allocate");
    held.memories.push_back(memory);
    if (api.write(device, memory, 0, buffer.data(), buffer.size(), &error))
      return failure("write");
    bindings.push_back({memory, 0, {nullptr, 0}, {nullptr, 0}});
  }
  std::vector<fp_size_instruction> code;
  for (const int64_t value : scalars)
    code.push_back({int32_t(package::SizeOpcode::constant), value});
  for (const int64_t value : grid)
    code.push_back({int32_t(package::SizeOpcode::constant), value});
  std::vector<fp_size> sizes;
  for (const fp_size_instruction &each : code)
    sizes.push_back({&each, 1});
  fp_command command = {};
  command.kind = FP_COMMAND_DISPATCH;
  command.kernel = kernel;
  std::copy_n(sizes.end() - 3, 3, command.grid);
  command.bindings = bindings.data();
  command.binding_count = bindings.size();
  command.scalars = sizes.data();
  command.scalar_count = scalars.size();
  if (api.record(device, executable, &command, 1, &held.recording, &error))
    return failure("record");
  if (api.replay(device, held.recording, nullptr, 0, &error))
    return failure("replay");
  for (size_t i = 0; i < buffers.size(); ++i)
    if (api.read(device, buffers[i].data(), held.memories[i], 0, buffers[i].size(), &error))
      return failure("read");
  return Status();
}

} // namespace freeport
