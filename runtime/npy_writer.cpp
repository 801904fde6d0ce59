// Writing. Streams an array to a temporary name and renames it, as packages are written: whoever opens the output finds
// all of it.
#include "runtime/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <utility>

namespace freeport {

static_assert(std::endian::native == std::endian::little);

namespace {

namespace fs = std::filesystem;

constexpr size_t kMaximumRank = 32; // what NumPy reads in every version

/// Version 1.0; padded so that data starts at a multiple of 64 bytes.
std::string header(std::span<const int64_t> shape) {
  std::string dimensions;
  for (size_t i = 0; i < shape.size(); ++i)
    dimensions += fmt::format("{}{},", i ? " " : "", shape[i]);
  if (shape.size() > 1)
    dimensions.pop_back();
  std::string text = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", dimensions);
  text.append(63 - (10 + text.size()) % 64, ' ');
  text += '\n';
  std::string result("\x93NUMPY\x01\x00", 8);
  result += static_cast<char>(text.size() & 0xFF);
  result += static_cast<char>(text.size() >> 8);
  return result + text;
}

bool names_file(fs::file_type type) { return type == fs::file_type::regular || type == fs::file_type::not_found; }

} // namespace

Result<NpyWriter> NpyWriter::create(const std::string &path, std::span<const int64_t> shape) {
  auto refuse = [&](const std::string &text) { return Status(Code::kInvalidArgument, path + ": " + text); };
  if (shape.size() > kMaximumRank)
    return refuse(fmt::format("expects an array of rank at most {}, got {}", kMaximumRank, shape.size()));
  NpyWriter writer;
  writer.count_ = 1;
  // Zeroes do not excuse the other dimensions: NumPy multiplies those as well.
  int64_t bytes = sizeof(float);
  for (int64_t dimension : shape) {
    if (dimension < 0)
      return refuse(fmt::format("expects dimensions of at least 0, got {}", dimension));
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(dimension, 1), &bytes))
      return refuse("expects an array below 2^63 bytes, got a larger one");
    writer.count_ *= static_cast<uint64_t>(dimension);
  }
  writer.left_ = writer.count_;
  writer.path_ = path;
  FP_RETURN_IF_ERROR(writer.open());
  std::string text = header(shape);
  FP_RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(text))));
  return writer;
}

NpyWriter::NpyWriter(NpyWriter &&other) noexcept
    : path_(std::move(other.path_)), target_(std::move(other.target_)), temporary_(std::move(other.temporary_)),
      handle_(std::exchange(other.handle_, -1)), count_(other.count_), left_(other.left_) {}

NpyWriter::~NpyWriter() { discard(); }

void NpyWriter::discard() {
  if (handle_ < 0)
    return;
  if (!temporary_.empty())
    ::unlink(temporary_.c_str());
  ::close(handle_);
  handle_ = -1;
}

Status NpyWriter::io_error(const char *what) const {
  return Status(Code::kIo, fmt::format("{}: {}: {}", path_, what, std::strerror(errno)));
}

Status NpyWriter::open() {
  std::error_code error;
  target_ = path_;
  bool link = fs::is_symlink(fs::symlink_status(path_, error));
  fs::file_type type = fs::status(path_, error).type();
  if (type == fs::file_type::directory)
    return Status(Code::kIo, path_ + ": expects the name of a file to write, got a folder");
  // /dev/stdout may lead to a regular file; renaming would replace the link of the whole system.
  bool straight = !names_file(type) || (link && (path_.starts_with("/dev/") || path_.starts_with("/proc/")));
  if (straight) {
    handle_ = ::open(path_.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
    return handle_ < 0 ? io_error("cannot open the output") : Status();
  }
  if (link)
    if (fs::path resolved = fs::weakly_canonical(path_, error); !error)
      target_ = resolved;
  fs::path file = target_;
  // A name that is taken belongs to another writer of this process, or to a killed one whose number came again.
  for (int attempt = 0; attempt < 100; ++attempt) {
    temporary_ = file.parent_path() / fmt::format(".{}.{}-{}.partial", file.filename().string(), ::getpid(), attempt);
    handle_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (handle_ >= 0 || errno != EEXIST)
      break;
  }
  return handle_ < 0 ? io_error("cannot create the output") : Status();
}

Status NpyWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    ssize_t count = ::write(handle_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0) {
      Status status = io_error("cannot write the output");
      discard();
      return status;
    }
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return Status();
}

Status NpyWriter::append(std::span<const float> values) {
  if (handle_ < 0)
    return Status(Code::kInvalidArgument, path_ + ": expects an open output, got one that is closed");
  if (values.size() > left_) {
    discard();
    return Status(Code::kOutOfRange, fmt::format("{}: expects {} more values, got {}", path_, left_, values.size()));
  }
  left_ -= values.size();
  return write(std::as_bytes(values));
}

Status NpyWriter::finish() {
  if (handle_ < 0)
    return Status(Code::kInvalidArgument, path_ + ": expects an open output, got one that is closed");
  Status status;
  if (left_ > 0)
    status =
        Status(Code::kInvalidArgument, fmt::format("{}: expects {} values, got {}", path_, count_, count_ - left_));
  else
    status = commit();
  discard();
  return status;
}

Status NpyWriter::commit() {
  // Pipes and devices have nothing to sync.
  if (::fsync(handle_) != 0 && !(temporary_.empty() && (errno == EINVAL || errno == EROFS)))
    return io_error("cannot write the output");
  if (::close(std::exchange(handle_, -1)) != 0) {
    Status status = io_error("cannot close the output");
    ::unlink(temporary_.c_str());
    return status;
  }
  if (!temporary_.empty() && ::rename(temporary_.c_str(), target_.c_str()) != 0) {
    Status status = io_error("cannot give the output its name");
    ::unlink(temporary_.c_str());
    return status;
  }
  return Status();
}

} // namespace freeport
