// The fp_device_api of devices whose memory is the host's (reference, cpu): such a backend only says how it loads an
// executable and runs a range of its programs. Memory, recordings and threads are shared by all of them.
#pragma once

#include "runtime/device.h"
#include "runtime/status.h"

#include <cstddef>
#include <memory>
#include <span>

namespace freeport {

/// The operands of one dispatch; the arrays are the recording's and hold as many entries as the kernel takes.
struct HostDispatch {
  void *const *bindings;
  const uint64_t *readable; ///< bytes from each binding's address to the end of its memory
  const uint64_t *writable; ///< the same, or 0 where the memory is only read
  const int64_t *scalars;
  int64_t grid[3];
};

/// Loaded kernels.
class HostExecutable {
public:
  virtual ~HostExecutable() = default;
  /// Whether `kernel` takes so many operands: kCorrupt if not. Code that does not say what it takes accepts any.
  virtual Status check(uint32_t kernel, size_t bindings, size_t scalars) const { return Status(); }
  /// Runs programs first .. last-1 of the grid in linear order (x fastest). Thread-safe.
  virtual void run(uint32_t kernel, const HostDispatch &dispatch, int64_t first, int64_t last) const = 0;
};

using HostLoad = Result<std::unique_ptr<HostExecutable>> (*)(std::span<const std::byte> content, uint32_t version,
                                                             std::span<const char *const> kernel_names);
using HostRejects = const char *(*)(fp_device *device, const char *target, const char *const *conditions, size_t count);
using HostEnumerate = int32_t (*)(uint32_t index, fp_device_description *description, fp_error *error);
using HostOpen = int32_t (*)(const fp_device_options *options, fp_device **device, fp_error *error);

/// Copies a failure into a caller-owned error, cut to its size, and returns its code; `error` may be null.
int32_t fill_error(const Status &status, fp_error *error);

/// What host_device_api is made of.
fp_device_api make_host_device_api(const char *name, HostEnumerate enumerate, HostRejects rejects, HostOpen open);
/// The processor as the only device of a backend; `reason` says why it cannot be used, or is null.
int32_t enumerate_host_device(const char *reason, uint32_t index, fp_device_description *description, fp_error *error);
int32_t open_host_device(const char *name, HostLoad load, const fp_device_options *options, fp_device **device,
                         fp_error *error);

/// The api of the backend that `Traits` describes with
///   static constexpr const char *name;
///   static const char *rejects(const char *target, const char *const *conditions, size_t count);
///   static Result<std::unique_ptr<HostExecutable>> load(std::span<const std::byte> content, uint32_t version,
///                                                       std::span<const char *const> kernel_names);
///   static const char *unusable();   // optional: why this processor cannot run any executable, or null
template <class Traits> const fp_device_api *host_device_api() {
  static const fp_device_api api = make_host_device_api(
      Traits::name,
      [](uint32_t index, fp_device_description *description, fp_error *error) {
        const char *reason = nullptr;
        if constexpr (requires { Traits::unusable(); })
          reason = Traits::unusable();
        return enumerate_host_device(reason, index, description, error);
      },
      [](fp_device *, const char *target, const char *const *conditions, size_t count) {
        return Traits::rejects(target, conditions, count);
      },
      [](const fp_device_options *options, fp_device **device, fp_error *error) {
        return open_host_device(Traits::name, &Traits::load, options, device, error);
      });
  return &api;
}

} // namespace freeport
