// The driver's compiled pipelines on disk, so that only the first load of a model waits for its compiler.
#pragma once

#include "backends/vulkan/runtime/context.h"

#include <string>

namespace freeport::vulkan {

class PipelineCache {
public:
  /// Reads what an earlier process left for this device and driver; whatever is wrong with it means an empty cache.
  explicit PipelineCache(Context &context);
  ~PipelineCache();
  PipelineCache(const PipelineCache &) = delete;

  VkPipelineCache handle() const { return handle_; } ///< perhaps null, which Vulkan takes as no cache
  bool was_read() const { return read_bytes_ > 0; }
  const std::string &path() const { return path_; } ///< "": there is no folder for it

  /// Writes the cache where it has grown; a failure costs the next process some time and is not reported.
  void save();

private:
  Context &context_;
  VkPipelineCache handle_ = VK_NULL_HANDLE;
  std::string path_;
  size_t read_bytes_ = 0; ///< of the driver's data, as read or last written
};

} // namespace freeport::vulkan
