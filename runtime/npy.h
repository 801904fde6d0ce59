// NumPy's .npy files: token ids in, float32 arrays out. A reader checks every size before it uses it; a writer streams,
// and nothing appears under the output's name before all of it is on the disk.
#pragma once

#include "runtime/status.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace freeport {

/// The integers of a rank-1 array of dtype <i2, <i4, <i8, <u2 or <u4, format versions 1.0 to 3.0; `name` is the file's
/// in messages. kCorrupt where the bytes do not follow the format, kUnsupported for other dtypes, ranks and sizes.
Result<std::vector<int64_t>> parse_npy_integers(std::span<const std::byte> bytes, std::string_view name);

/// The same of the file, pipe or device at `path`. kNotFound, kIo where it cannot be read.
Result<std::vector<int64_t>> read_npy_integers(const std::string &path);

/// Writes a float32 array in C order. The file stays under a temporary name in its folder until `finish`; where `path`
/// is a pipe or device, or a link below /dev or /proc, the bytes go straight to it. A failure, and destruction before
/// `finish`, leave no new file and what stood under `path` as it was.
class NpyWriter {
public:
  /// kInvalidArgument for shapes that no array has, kIo where the output cannot be created.
  static Result<NpyWriter> create(const std::string &path, std::span<const int64_t> shape);
  NpyWriter(NpyWriter &&other) noexcept;
  NpyWriter &operator=(NpyWriter &&) = delete;
  ~NpyWriter();

  /// The next values, of any count. kOutOfRange if the array has no place for them; after a failure the writer is
  /// closed.
  Status append(std::span<const float> values);
  /// kInvalidArgument if values are missing.
  Status finish();

private:
  NpyWriter() = default;
  Status open();
  Status write(std::span<const std::byte> bytes);
  Status commit();
  Status io_error(const char *what) const; ///< of errno
  void discard();

  std::string path_, target_, temporary_; ///< as asked for; links resolved; empty where written straight
  int handle_ = -1;
  uint64_t count_ = 0, left_ = 0; ///< values of the array; those to come
};

} // namespace freeport
