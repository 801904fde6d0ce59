#include "test/conformance/dispatch.h"

#include "runtime/package_generated.h"
#include "runtime/registry.h"

#include <cstring>
#include <map>
#include <unistd.h>

namespace freeport {
namespace {

class Devices {
public:
  ~Devices() {
    for (auto &[api, device] : open_)
      if (device)
        api->close(device);
  }
  /// Null where it cannot be opened; `error` says why.
  fp_device *find(const fp_device_api *api, fp_error &error) {
    auto [known, fresh] = open_.try_emplace(api, nullptr);
    const fp_device_options options = {"", 1, 0};
    if (fresh && api->open(&options, &known->second, &error))
      known->second = nullptr;
    return known->second;
  }

private:
  std::map<const fp_device_api *, fp_device *> open_;
};

/// What a dispatch holds on a device, given back in order.
struct Loaded {
  const fp_device_api *api;
  fp_device *device;
  std::vector<fp_memory *> memories;
  fp_executable *executable = nullptr;
  fp_recording *recording = nullptr;

  ~Loaded() {
    if (recording)
      api->erase(device, recording);
    if (executable)
      api->unload(device, executable);
    for (fp_memory *memory : memories)
      api->release(device, memory);
  }
};

bool transfer(int file, char *data, size_t size, ssize_t (*move)(int, char *, size_t)) {
  for (size_t done = 0; done < size;) {
    const ssize_t count = move(file, data + done, size - done);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return false;
    done += size_t(count);
  }
  return true;
}

} // namespace

Result<bool> run_dispatch(Dispatch &dispatch, std::string &why) {
  static Devices devices;
  const fp_device_api *api = find_device_api(dispatch.backend);
  if (!api)
    return Status(Code::kNotFound, "expects a device called " + dispatch.backend);
  fp_error error = {};
  fp_device *device = devices.find(api, error);
  if (!device) {
    why = error.message;
    return false;
  }
  std::vector<const char *> conditions;
  for (const std::string &condition : dispatch.conditions)
    conditions.push_back(condition.c_str());
  if (const char *reason = api->rejects(device, dispatch.target.c_str(), conditions.data(), conditions.size())) {
    why = reason;
    return false;
  }
  auto failure = [&](const char *stage) {
    return Status(Code::kInternal, dispatch.backend + ": " + stage + ": " + error.message);
  };
  Loaded loaded{api, device, {}};
  std::vector<fp_binding> bindings;
  for (const Bytes &buffer : dispatch.buffers) {
    fp_memory *memory = nullptr;
    if (api->allocate(device, buffer.size(), &memory, &error))
      return failure("allocate");
    loaded.memories.push_back(memory);
    if (api->write(device, memory, 0, buffer.data(), buffer.size(), &error))
      return failure("write");
    bindings.push_back({memory, 0, {nullptr, 0}, {nullptr, 0}});
  }
  const char *names[] = {dispatch.kernel.c_str()};
  if (api->load(device, dispatch.content.data(), dispatch.content.size(), dispatch.version, names, 1,
                &loaded.executable, &error))
    return failure("load");

  std::vector<fp_size_instruction> code;
  for (const int64_t value : dispatch.scalars)
    code.push_back({int32_t(package::SizeOpcode::constant), value});
  for (const int64_t value : dispatch.grid)
    code.push_back({int32_t(package::SizeOpcode::constant), value});
  std::vector<fp_size> sizes;
  for (const fp_size_instruction &each : code)
    sizes.push_back({&each, 1});
  fp_command command = {};
  command.kind = FP_COMMAND_DISPATCH;
  std::copy_n(sizes.end() - 3, 3, command.grid);
  command.bindings = bindings.data();
  command.binding_count = bindings.size();
  command.scalars = sizes.data();
  command.scalar_count = dispatch.scalars.size();
  if (api->record(device, loaded.executable, &command, 1, &loaded.recording, &error))
    return failure("record");
  if (api->replay(device, loaded.recording, nullptr, 0, &error))
    return failure("replay");
  for (size_t i = 0; i < dispatch.buffers.size(); ++i)
    if (api->read(device, dispatch.buffers[i].data(), loaded.memories[i], 0, dispatch.buffers[i].size(), &error))
      return failure("read");
  return true;
}

bool write_frame(int file, const nlohmann::json &value) {
  Bytes bytes(8);
  nlohmann::json::to_msgpack(value, bytes);
  const uint64_t size = bytes.size() - 8;
  std::memcpy(bytes.data(), &size, 8);
  return transfer(file, reinterpret_cast<char *>(bytes.data()), bytes.size(),
                  [](int to, char *data, size_t count) { return write(to, data, count); });
}

bool read_frame(int file, nlohmann::json &value) {
  auto take = [](int from, char *data, size_t count) { return read(from, data, count); };
  uint64_t size = 0;
  if (!transfer(file, reinterpret_cast<char *>(&size), 8, take))
    return false;
  Bytes bytes(size);
  if (!transfer(file, reinterpret_cast<char *>(bytes.data()), size, take))
    return false;
  value = nlohmann::json::from_msgpack(bytes, /*strict=*/true, /*allow_exceptions=*/false);
  return !value.is_discarded();
}

} // namespace freeport
