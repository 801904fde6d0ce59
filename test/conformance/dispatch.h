// One dispatch over the run-time contract of a backend and nothing else: what RunKernel.h does here, and what the
// program freeport-dispatch-runner does for it on another machine or an emulated one.
#pragma once

#include "runtime/status.h"

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace freeport {

struct Dispatch {
  std::string backend, target;
  std::vector<std::string> conditions;
  uint32_t version = 0;
  std::vector<uint8_t> content; ///< the executable
  std::string kernel;
  std::vector<std::vector<std::byte>> buffers; ///< the kernel's memory arguments; afterwards what it left in them
  std::vector<int64_t> scalars;
  std::array<int64_t, 3> grid = {1, 1, 1};
};

/// Whether it ran: false where this machine has no such device, or one that rejects the target; `why` says so. A
/// failure names its stage. Opens one device of each backend, for the life of the process; not thread-safe.
Result<bool> run_dispatch(Dispatch &dispatch, std::string &why);

/// Frames of a dispatch runner: eight bytes of length, little-endian, then MessagePack. False at the end of the stream.
bool write_frame(int file, const nlohmann::json &value);
bool read_frame(int file, nlohmann::json &value);

/// A buffer as it stands in a frame, and back.
nlohmann::json json_of(std::span<const std::byte> buffer);
std::vector<std::byte> buffer_of(const nlohmann::json &value);

} // namespace freeport
