// The device `vulkan` as the backend's own code and tests see it.
#pragma once

#include "backends/vulkan/runtime/recording.h"
#include "backends/vulkan/runtime/transfer.h"

namespace freeport::vulkan {

/// What an fp_device of this backend is; members in the order in which they depend on each other.
struct Device {
  explicit Device(std::unique_ptr<Context> made)
      : context(std::move(made)), pool(*context), transfers(*context, pool), cache(*context) {}

  std::unique_ptr<Context> context;
  MemoryPool pool;
  Transfers transfers;
  PipelineCache cache;
  std::string rejection; ///< what `rejects` returned last
};
inline Device *device_of(fp_device *handle) { return reinterpret_cast<Device *>(handle); }

} // namespace freeport::vulkan
