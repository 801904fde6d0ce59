// A file is a header of ours and the driver's data behind it. The checksum is ours because drivers differ in how they
// bear damaged data.
#include "backends/vulkan/runtime/pipeline_cache.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

namespace freeport::vulkan {
namespace {

constexpr uint64_t kLargestFile = uint64_t(256) << 20;

struct Header {
  char magic[8] = {'F', 'P', 'V', 'K', 'C', 'A', 'C', '1'};
  uint8_t uuid[VK_UUID_SIZE] = {};
  uint32_t driver_version = 0, reserved = 0;
  uint64_t bytes = 0, checksum = 0;
};

std::string cache_folder() {
  auto absolute = [](const char *name) -> std::string {
    const char *value = std::getenv(name);
    return value && *value == '/' ? value : "";
  };
  if (const std::string folder = absolute("XDG_CACHE_HOME"); !folder.empty())
    return folder + "/freeport";
  const std::string home = absolute("HOME");
  return home.empty() ? "" : home + "/.cache/freeport";
}

Header header_of(const Capabilities &device, const std::vector<char> &data) {
  Header header;
  std::memcpy(header.uuid, device.uuid_bytes, VK_UUID_SIZE);
  header.driver_version = device.driver_version;
  header.bytes = data.size();
  header.checksum = XXH3_64bits(data.data(), data.size());
  return header;
}

bool write_all(int file, const void *data, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t written = ::write(file, static_cast<const char *>(data) + done, bytes - done);
    if (written <= 0)
      return false;
    done += size_t(written);
  }
  return true;
}

/// The driver's data in the file, or nothing.
std::vector<char> read_data(const std::string &path, const Capabilities &device) {
  std::vector<char> data;
  std::FILE *file = std::fopen(path.c_str(), "rb");
  if (!file)
    return data;
  Header header;
  if (std::fread(&header, sizeof header, 1, file) == 1 && header.bytes <= kLargestFile) {
    data.resize(header.bytes);
    const bool whole = std::fread(data.data(), 1, data.size(), file) == data.size() && std::fgetc(file) == EOF;
    const Header expected = header_of(device, data);
    if (!whole || std::memcmp(&header, &expected, sizeof header) != 0)
      data.clear();
  }
  std::fclose(file);
  return data;
}

} // namespace

PipelineCache::PipelineCache(Context &context) : context_(context) {
  if (const std::string folder = cache_folder(); !folder.empty())
    path_ = fmt::format("{}/vulkan-{}-{:08x}.cache", folder, context.capabilities.uuid,
                        context.capabilities.driver_version);
  const std::vector<char> data = path_.empty() ? std::vector<char>() : read_data(path_, context.capabilities);
  VkPipelineCacheCreateInfo info = structure<VkPipelineCacheCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO);
  info.initialDataSize = data.size();
  info.pInitialData = data.data();
  read_bytes_ = data.size();
  if (context_.vk.vkCreatePipelineCache(context_.handle, &info, nullptr, &handle_) != VK_SUCCESS)
    handle_ = VK_NULL_HANDLE;
}

PipelineCache::~PipelineCache() { context_.vk.vkDestroyPipelineCache(context_.handle, handle_, nullptr); }

void PipelineCache::save() {
  size_t bytes = 0;
  if (path_.empty() || !handle_ ||
      context_.vk.vkGetPipelineCacheData(context_.handle, handle_, &bytes, nullptr) != VK_SUCCESS ||
      bytes <= read_bytes_ || bytes > kLargestFile)
    return;
  std::vector<char> data(bytes);
  if (context_.vk.vkGetPipelineCacheData(context_.handle, handle_, &bytes, data.data()) != VK_SUCCESS)
    return;
  data.resize(bytes);
  std::error_code code;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), code);
  std::string temporary = path_ + ".XXXXXX";
  const int file = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (file < 0)
    return;
  const Header header = header_of(context_.capabilities, data);
  const bool written = write_all(file, &header, sizeof header) && write_all(file, data.data(), data.size());
  if (::close(file) == 0 && written && std::rename(temporary.c_str(), path_.c_str()) == 0)
    read_bytes_ = bytes;
  else
    ::unlink(temporary.c_str());
}

} // namespace freeport::vulkan
