// A package on a device: kernels loaded, weights where the device reads them. Sessions run on it.
#pragma once

#include "runtime/device.h"
#include "runtime/package.h"
#include "runtime/status.h"
#include "runtime/tokenizer.h"

#include <memory>
#include <mutex>
#include <string>

namespace freeport {

struct ModelOptions {
  std::string device; ///< "NAME" or "NAME:SELECTOR"; empty: the first device that the package has fast code for
  int threads = 0;    ///< host threads of a replay; 0: the device's choice
};

/// Immutable but for the device, which serves one caller at a time: sessions hold `lock` while they use it. Any number
/// of sessions, on any threads.
class Model {
public:
  /// Opens the device, loads the package's executable for it and makes the weights visible to it. kNotFound names the
  /// devices that this build has; kUnsupported says why the device rejected the package's executables.
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
  fp_memory *weights() const { return weights_; }
  std::unique_lock<std::mutex> lock() const { return std::unique_lock(mutex_); }

private:
  Model() = default;
  Status open_device(const ModelOptions &options);
  Status load_executable();
  Status load_weights();

  std::shared_ptr<const Package> package_;
  const fp_device_api *api_ = nullptr;
  fp_device *device_ = nullptr;
  fp_executable *executable_ = nullptr;
  const package::Executable *chosen_ = nullptr;
  std::string_view target_;
  fp_memory *weights_ = nullptr;
  mutable std::mutex mutex_;
};

/// A Status for what a device reported.
Status device_status(const fp_error &error);

/// The tokenizer in the package; kUnsupported where it has none.
Result<std::unique_ptr<Tokenizer>> open_tokenizer(const Package &package);

} // namespace freeport
