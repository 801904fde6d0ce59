// One kernel on one device, outside of any model's program: self-tests and the conformance tests run kernels so.
#pragma once

#include "runtime/device.h"
#include "runtime/status.h"

#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace freeport {

/// Runs kernel number `kernel` of a loaded executable over `grid`. `buffers` are its memory arguments, in order, none
/// of them empty, and hold afterwards what it left in them. A failure names its stage.
Status run_single_dispatch(const fp_device_api &api, fp_device *device, fp_executable *executable, uint32_t kernel,
                           std::vector<std::vector<std::byte>> &buffers, std::span<const int64_t> scalars,
                           std::array<int64_t, 3> grid);

} // namespace freeport
