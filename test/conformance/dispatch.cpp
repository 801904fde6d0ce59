#include "test/conformance/dispatch.h"

#include "runtime/registry.h"
#include "runtime/single_dispatch.h"

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
  const char *names[] = {dispatch.kernel.c_str()};
  fp_executable *executable = nullptr;
  if (api->load(device, dispatch.content.data(), dispatch.content.size(), dispatch.version, names, 1, &executable,
                &error))
    return Status(Code(error.code), dispatch.backend + ": load: " + error.message);
  Status status = run_single_dispatch(*api, device, executable, 0, dispatch.buffers, dispatch.scalars, dispatch.grid);
  api->unload(device, executable);
  if (!status.ok())
    return status;
  return true;
}

bool write_frame(int file, const nlohmann::json &value) {
  std::vector<uint8_t> bytes(8);
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
  std::vector<uint8_t> bytes(size);
  if (!transfer(file, reinterpret_cast<char *>(bytes.data()), size, take))
    return false;
  value = nlohmann::json::from_msgpack(bytes, /*strict=*/true, /*allow_exceptions=*/false);
  return !value.is_discarded();
}

nlohmann::json json_of(std::span<const std::byte> buffer) {
  const auto *first = reinterpret_cast<const uint8_t *>(buffer.data());
  return nlohmann::json::binary(std::vector<uint8_t>(first, first + buffer.size()));
}

std::vector<std::byte> buffer_of(const nlohmann::json &value) {
  const std::vector<uint8_t> &bytes = value.get_binary();
  const auto *first = reinterpret_cast<const std::byte *>(bytes.data());
  return {first, first + bytes.size()};
}

} // namespace freeport
