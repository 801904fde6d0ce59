// Checks of SPIR-V from a package, which nobody vouches for: drivers may crash on words that do not follow the format.
// It is no full validator: what it lets through keeps inside the module and inside what the pipeline layout declares.
#pragma once

#include "backends/vulkan/runtime/capabilities.h"

#include <cstdint>
#include <span>

namespace freeport::vulkan {

/// kCorrupt unless `code` is one compute kernel "main" of 32 x 1 x 1 to 32 x 8 x 1 invocations, whose instructions and
/// ids are within bounds and whose buffers are bindings 0 to `bindings - 1` of set 0; kUnsupported where it declares a
/// capability that `device` does not offer.
Status check_spirv(std::span<const uint32_t> code, uint32_t bindings, const Capabilities &device);

} // namespace freeport::vulkan
