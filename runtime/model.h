// A package on a device: kernels loaded, weights where the device reads them. Sessions run on it.
#pragma once

#include "runtime/device.h"
#include "runtime/package.h"
#include "runtime/status.h"
#include "runtime/tokenizer.h"

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace freeport {

struct ModelOptions {
  std::string device; ///< "NAME" or "NAME:SELECTOR"; empty: the first device that the package has fast code for
  int threads = 0;    ///< host threads of a replay; 0: the device's choice
  /// Called while weights are copied to a device that cannot read them in place; false cancels (kCancelled).
  std::function<bool(uint64_t done, uint64_t total)> progress = nullptr;
  bool timings = false; ///< whether the device measures each dispatch, for fp_device_api::timings
};

/// An executable of the package that the device does not take.
struct Rejection {
  const package::Executable *executable;
  std::string reason;
  bool failed_self_test = false; ///< accepted, but gave other bits than the package says
};

/// What `device` makes of the package's executables for it: those that it accepts, in the package's order, from
/// baseline to best; and why not each of the others. `device` was opened by `api`.
struct Choice {
  std::vector<const package::Executable *> accepted;
  std::vector<Rejection> rejected;

  /// The best, or null.
  const package::Executable *taken() const { return accepted.empty() ? nullptr : accepted.back(); }
};
Choice choose_executable(const Package &package, const fp_device_api &api, fp_device *device);

/// The same for the device that `device` ("NAME" or "NAME:SELECTOR") names, opened for that.
Result<Choice> examine_device(const Package &package, const std::string &device);

struct ByteRange {
  uint64_t begin, end;
};

/// Runs of at most `limit` bytes that together cover `ranges`, in ascending order, and cut none of them; ranges that
/// are larger, or overlap and are larger together, are a run of their own.
std::vector<ByteRange> cut_runs(std::vector<ByteRange> ranges, uint64_t limit);

/// A parameter in device memory.
struct ParameterPlace {
  fp_memory *memory;
  uint64_t offset, bytes;
};

/// Immutable but for the device, which serves one caller at a time: sessions hold `lock` while they use it. Any number
/// of sessions, on any threads.
class Model {
public:
  /// Opens the device, loads the best of the package's executables that it takes and that passes the self-tests, and
  /// makes the weights visible to it. kNotFound names the devices that this build has; kUnsupported says why each
  /// executable was rejected. Without a choice in the options: cpu where the package has code for it, else others by
  /// the order of the backends, else reference.
  static Result<std::shared_ptr<Model>> open(std::shared_ptr<const Package> package, const ModelOptions &options);
  ~Model();
  Model(const Model &) = delete;
  Model &operator=(const Model &) = delete;

  const Package &package() const { return *package_; }
  const fp_device_api &api() const { return *api_; }
  fp_device *device() const { return device_; }
  fp_device_description description() const;
  fp_executable *executable() const { return executable_; }
  /// The executable's target, e.g. "x86-64-v3".
  std::string_view target() const { return target_; }
  /// Executables for this device that it did not take although the package holds them, with the reasons.
  const std::vector<Rejection> &rejected() const { return rejected_; }
  /// Where parameter `index` of the manifest lies.
  ParameterPlace parameter(uint32_t index) const { return places_[index]; }
  std::unique_lock<std::mutex> lock() const { return std::unique_lock(mutex_); }

private:
  Model() = default;
  Status choose_device(const ModelOptions &options);
  Status open_device(const fp_device_api &api, const std::string &selector, const ModelOptions &options);
  void close_device();
  Status load_executable(const package::Executable &executable);
  Status load_best_executable(const Choice &choice);
  Status load_weights(const ModelOptions &options);
  Status load_range(uint64_t begin, uint64_t end, const ModelOptions &options, fp_memory **memory);

  std::shared_ptr<const Package> package_;
  const fp_device_api *api_ = nullptr;
  fp_device *device_ = nullptr;
  fp_executable *executable_ = nullptr;
  std::string_view target_;
  std::vector<Rejection> rejected_;
  std::vector<fp_memory *> weights_;
  std::vector<ParameterPlace> places_;
  mutable std::mutex mutex_;
};

/// A Status for what a device reported.
Status device_status(const fp_error &error);

/// The tokenizer in the package; kUnsupported where it has none.
Result<std::unique_ptr<Tokenizer>> open_tokenizer(const Package &package);

} // namespace freeport
