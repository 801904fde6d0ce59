// The devices that this build of the runtime knows, by backend name. Backends.inc, made by CMake from
// backends/CMakeLists.txt, is the only list.
#pragma once

#include "runtime/device.h"

#include <span>
#include <string_view>

namespace freeport {

/// All backends in the order of backends/CMakeLists.txt. Thread-safe.
std::span<const fp_device_api *const> device_apis();

/// The backend called `name`, or null.
const fp_device_api *find_device_api(std::string_view name);

} // namespace freeport
