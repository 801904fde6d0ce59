// Reading. The header of a .npy file is a Python dictionary of three keys; the reader accepts any spelling that Python
// would of these keys and values, and nothing else.
#include "runtime/npy.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace freeport {

static_assert(std::endian::native == std::endian::little);

namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaximumHeader = 65535;
constexpr size_t kMaximumEntries = size_t{1} << 26;
constexpr size_t kMaximumFile = kMaximumEntries * 8 + kMaximumHeader + 12;

/// The beginning of outside text, fit for a message.
std::string excerpt(std::string_view text) {
  std::string result(text.substr(0, 20));
  for (char &each : result)
    each = each >= ' ' && each <= '~' ? each : '?';
  return result;
}

struct Header {
  std::string_view dtype;
  bool fortran_order = false;
  std::vector<uint64_t> shape;
};

/// Reads the dictionary.
class HeaderReader {
public:
  HeaderReader(std::string_view text, std::string_view name) : text_(text), name_(name) {}

  Result<Header> read() {
    FP_RETURN_IF_ERROR(expect('{'));
    bool dtype = false, order = false, shape = false;
    while (!accept('}')) {
      FP_ASSIGN_OR_RETURN(std::string_view key, string());
      FP_RETURN_IF_ERROR(expect(':'));
      bool *seen = key == "descr" ? &dtype : key == "fortran_order" ? &order : key == "shape" ? &shape : nullptr;
      if (!seen || *seen)
        return refuse("the keys descr, fortran_order and shape, once each");
      *seen = true;
      FP_RETURN_IF_ERROR(value(key));
      if (!accept(',')) {
        FP_RETURN_IF_ERROR(expect('}'));
        break;
      }
    }
    skip_space();
    if (position_ != text_.size())
      return refuse("the header to end with its dictionary");
    if (!dtype || !order || !shape)
      return refuse("the keys descr, fortran_order and shape");
    return std::move(header_);
  }

private:
  Status refuse(std::string_view expected) const {
    return Status(Code::kCorrupt, fmt::format("{}: expects {} in the .npy header, got '{}' at byte {} of it", name_,
                                              expected, excerpt(text_.substr(position_)), position_));
  }

  void skip_space() {
    while (position_ < text_.size() && std::string_view(" \t\r\n").find(text_[position_]) != std::string_view::npos)
      ++position_;
  }
  bool accept(std::string_view token) {
    skip_space();
    bool found = text_.substr(position_).starts_with(token);
    position_ += found ? token.size() : 0;
    return found;
  }
  bool accept(char token) { return accept(std::string_view(&token, 1)); }
  Status expect(char token) { return accept(token) ? Status() : refuse(fmt::format("'{}'", token)); }

  Result<std::string_view> string() {
    char quote = accept('\'') ? '\'' : accept('"') ? '"' : 0;
    size_t end = quote ? text_.find(quote, position_) : std::string_view::npos;
    if (end == std::string_view::npos)
      return refuse("a string");
    std::string_view found = text_.substr(position_, end - position_);
    position_ = end + 1;
    return found;
  }

  Status value(std::string_view key) {
    if (key == "shape")
      return shape();
    if (key == "fortran_order") {
      header_.fortran_order = accept("True");
      return header_.fortran_order || accept("False") ? Status() : refuse("True or False");
    }
    skip_space();
    if (text_.substr(position_).starts_with('['))
      return Status(Code::kUnsupported, fmt::format("{}: expects integers, got records", name_));
    FP_ASSIGN_OR_RETURN(header_.dtype, string());
    return Status();
  }

  Status shape() {
    FP_RETURN_IF_ERROR(expect('('));
    while (!accept(')')) {
      skip_space();
      uint64_t dimension = 0;
      auto [end, error] = std::from_chars(text_.data() + position_, text_.data() + text_.size(), dimension);
      if (error != std::errc())
        return refuse("a dimension that fits 64 bits");
      position_ = static_cast<size_t>(end - text_.data());
      header_.shape.push_back(dimension);
      if (accept(','))
        continue;
      if (header_.shape.size() == 1) // (5) is a number, not a tuple
        return refuse("','");
      FP_RETURN_IF_ERROR(expect(')'));
      break;
    }
    return Status();
  }

  std::string_view text_, name_;
  size_t position_ = 0;
  Header header_;
};

template <typename T> std::vector<int64_t> widen(std::span<const std::byte> bytes) {
  std::vector<int64_t> result(bytes.size() / sizeof(T));
  for (size_t i = 0; i < result.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    result[i] = static_cast<int64_t>(value);
  }
  return result;
}

struct IntegerType {
  std::string_view dtype;
  size_t size;
  std::vector<int64_t> (*widen)(std::span<const std::byte>);
};
constexpr IntegerType kIntegerTypes[] = {
    {"<i4", 4, widen<int32_t>},  {"<i8", 8, widen<int64_t>},  {"<i2", 2, widen<int16_t>},
    {"<u4", 4, widen<uint32_t>}, {"<u2", 2, widen<uint16_t>},
};

} // namespace

Result<std::vector<int64_t>> parse_npy_integers(std::span<const std::byte> bytes, std::string_view name) {
  auto refuse = [&](Code code, const std::string &text) { return Status(code, fmt::format("{}: {}", name, text)); };
  std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  if (!text.starts_with(kMagic) || text.size() < 10)
    return refuse(Code::kCorrupt,
                  fmt::format("expects a .npy file, got {} bytes that do not begin like one", text.size()));
  auto byte = [&](size_t at) { return static_cast<uint32_t>(bytes[at]); };
  uint32_t major = byte(6), minor = byte(7);
  if (major < 1 || major > 3 || minor != 0)
    return refuse(Code::kUnsupported, fmt::format("expects .npy version 1.0, 2.0 or 3.0, got {}.{}", major, minor));
  size_t begin = major == 1 ? 10 : 12;
  if (text.size() < begin)
    return refuse(Code::kCorrupt, fmt::format("expects {} bytes before the .npy header, got {}", begin, text.size()));
  size_t size = byte(8) | byte(9) << 8;
  if (major > 1)
    size |= byte(10) << 16 | byte(11) << 24;
  if (size > std::min(text.size() - begin, kMaximumHeader))
    return refuse(Code::kCorrupt, fmt::format("expects a .npy header of at most {} bytes, got {}",
                                              std::min(text.size() - begin, kMaximumHeader), size));
  FP_ASSIGN_OR_RETURN(Header header, HeaderReader(text.substr(begin, size), name).read());

  if (header.shape.size() != 1)
    return refuse(Code::kUnsupported,
                  fmt::format("expects an array of rank 1, got shape ({})", fmt::join(header.shape, ", ")));
  if (header.fortran_order)
    return refuse(Code::kUnsupported, "expects C order, got Fortran order");
  const IntegerType *type = nullptr;
  for (const IntegerType &each : kIntegerTypes)
    if (each.dtype == header.dtype)
      type = &each;
  if (!type)
    return refuse(Code::kUnsupported,
                  fmt::format("expects dtype <i4, <i8, <i2, <u4 or <u2, got {}", excerpt(header.dtype)));
  uint64_t count = header.shape[0];
  if (count > kMaximumEntries)
    return refuse(Code::kUnsupported, fmt::format("expects at most {} entries, got {}", kMaximumEntries, count));
  std::span<const std::byte> data = bytes.subspan(begin + size);
  if (data.size() != count * type->size)
    return refuse(Code::kCorrupt, fmt::format("expects {} bytes behind the header for {} entries of {}, got {}",
                                              count * type->size, count, type->dtype, data.size()));
  return type->widen(data);
}

Result<std::vector<int64_t>> read_npy_integers(const std::string &path) {
  int handle = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (handle < 0)
    return Status(errno == ENOENT ? Code::kNotFound : Code::kIo,
                  fmt::format("{}: cannot open the file: {}", path, std::strerror(errno)));
  std::vector<std::byte> bytes(size_t{1} << 16);
  size_t size = 0;
  ssize_t count;
  while ((count = ::read(handle, bytes.data() + size, bytes.size() - size)) != 0) {
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      break;
    size += static_cast<size_t>(count);
    if (size > kMaximumFile)
      break;
    if (size == bytes.size())
      bytes.resize(size * 2);
  }
  int error = errno;
  ::close(handle);
  if (count < 0)
    return Status(Code::kIo, fmt::format("{}: cannot read the file: {}", path, std::strerror(error)));
  if (size > kMaximumFile)
    return Status(Code::kUnsupported, fmt::format("{}: expects at most {} bytes, got more", path, kMaximumFile));
  return parse_npy_integers(std::span<const std::byte>(bytes).first(size), path);
}
} // namespace freeport
