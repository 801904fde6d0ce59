// Kernels of the cpu backend: functions of a shared object, called once per point of the grid.
#pragma once

#include "runtime/host_device.h"

#include <memory>
#include <span>

namespace freeport::cpu {

/// The version of executables that this build loads.
constexpr uint32_t kExecutableVersion = 1;

/// Loads the shared object `content` and finds each kernel in it; kernel_names[i] becomes kernel i.
Result<std::unique_ptr<HostExecutable>> load_executable(std::span<const std::byte> content, uint32_t version,
                                                        std::span<const char *const> kernel_names);

} // namespace freeport::cpu
