// Opening: the header first, then the manifest's checksum and FlatBuffer, then every number in it, then the checksums
// of all segments. Nothing is used before it was checked.
#include "runtime/package.h"

#include "runtime/manifest_checks.h"
#include "runtime/package_header.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace freeport {
namespace {

Status corrupt(const std::string &path, std::string_view what) {
  return Status(Code::kCorrupt, fmt::format("{}: {}", path, what));
}

/// Maps a regular file; an empty one maps to nothing.
Result<std::span<const std::byte>> map_file(const std::string &path) {
  // Without O_NONBLOCK, a pipe that nobody writes to would be waited for.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0)
    return Status(errno == ENOENT ? Code::kNotFound : Code::kIo,
                  fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  struct stat status;
  std::span<const std::byte> bytes;
  Status problem;
  if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    problem = corrupt(path, S_ISDIR(status.st_mode)
                                ? "expects a package (model.port), got a folder; compile it first (freeport compile)"
                                : "expects a package (model.port), got something that is not a file");
  } else if (status.st_size > 0) {
    void *data = ::mmap(nullptr, size_t(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED)
      problem = Status(Code::kIo, fmt::format("{}: cannot map: {}", path, std::strerror(errno)));
    else
      bytes = {static_cast<const std::byte *>(data), size_t(status.st_size)};
    // Fewer faults and translations where the file system has large pages; nothing is lost where it has none.
    if (data != MAP_FAILED)
      ::madvise(data, size_t(status.st_size), MADV_HUGEPAGE);
  }
  ::close(file);
  FP_RETURN_IF_ERROR(problem);
  return bytes;
}

Result<PackageHeader> read_header(const std::string &path, std::span<const std::byte> bytes) {
  PackageHeader header;
  if (bytes.size() < sizeof header)
    return corrupt(path, fmt::format("expects a package of at least 64 bytes, got {}: the file is truncated or is "
                                     "something else",
                                     bytes.size()));
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::memcmp(header.magic, kPackageMagic, sizeof header.magic) != 0)
    return corrupt(path, "expects a Freeport package (freeport compile CHECKPOINT -o model.port), got another file");
  if (header.version != kPackageVersion)
    return Status(Code::kUnsupported, fmt::format("{}: expects package version {}, got {}; compile the checkpoint with "
                                                  "this build",
                                                  path, kPackageVersion, header.version));
  if (XXH3_64bits(&header, offsetof(PackageHeader, header_checksum)) != header.header_checksum ||
      header.reserved != 0 || header.padding != 0)
    return corrupt(path, "the header's checksum does not match: the file is damaged");
  if (header.file_size != bytes.size())
    return corrupt(path, fmt::format("expects {} bytes, got {}: the file is {}", header.file_size, bytes.size(),
                                     bytes.size() < header.file_size ? "truncated" : "longer than it was written"));
  if (header.manifest_offset > bytes.size() || header.manifest_size > bytes.size() - header.manifest_offset)
    return corrupt(path, "expects the manifest inside the file");
  return header;
}

uint64_t checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

/// XXH3-64 over the entries of a parameter, one after the other.
class ParameterChecksum {
public:
  ParameterChecksum() : state_(XXH3_createState()) { XXH3_64bits_reset(state_); }
  ~ParameterChecksum() { XXH3_freeState(state_); }
  ParameterChecksum(const ParameterChecksum &) = delete;
  void add(std::span<const std::byte> bytes) { XXH3_64bits_update(state_, bytes.data(), bytes.size()); }
  uint64_t value() const { return XXH3_64bits_digest(state_); }

private:
  XXH3_state_t *state_;
};

using Range = std::pair<uint64_t, uint64_t>; // offset, end

/// All runs of the file that mean something, ascending.
std::vector<Range> used_ranges(const package::Manifest &manifest, const PackageHeader &header) {
  std::vector<Range> ranges = {{0, sizeof(PackageHeader)},
                               {header.manifest_offset, header.manifest_offset + header.manifest_size}};
  for (const package::Segment *segment : manifest_segments(manifest))
    ranges.push_back({segment->offset(), segment->offset() + segment->size()});
  for (const package::Parameter *parameter : *manifest.parameters())
    for (uint64_t entry = 0; entry < parameter_shape(*parameter).entries; ++entry) {
      const uint64_t begin = parameter->offset() + entry * parameter->entry_stride();
      ranges.push_back({begin, begin + parameter->entry_size()});
    }
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

} // namespace

std::string_view symbol_name(Symbol symbol) {
  constexpr std::string_view names[kSymbols] = {"tokens", "logit_rows", "sequences", "table_pages"};
  return names[size_t(symbol)];
}

std::string_view input_name(Input input) {
  constexpr std::string_view names[kInputs] = {"token_ids", "positions", "sequences", "page_table", "logit_rows"};
  return names[size_t(input)];
}

ParameterShape parameter_shape(const package::Parameter &parameter) {
  const auto &shape = *parameter.shape();
  const auto size = shape.size();
  return {size == 3 ? shape.Get(0) : 1, size == 1 ? 1 : shape.Get(size - 2), shape.Get(size - 1)};
}

Result<std::shared_ptr<const Package>> Package::open(const std::string &path) {
  FP_ASSIGN_OR_RETURN(const std::span<const std::byte> bytes, map_file(path));
  std::shared_ptr<Package> opened(new Package(path, bytes)); // unmaps on every way out
  FP_ASSIGN_OR_RETURN(const PackageHeader header, read_header(path, bytes));
  const auto manifest_bytes = bytes.subspan(header.manifest_offset, header.manifest_size);
  if (checksum(manifest_bytes) != header.manifest_checksum)
    return corrupt(path, "the manifest's checksum does not match: the file is damaged");
  auto checked = check_manifest(manifest_bytes, bytes.size());
  if (!checked.ok())
    return Status(checked.status().code(), path + ": " + checked.status().message());
  opened->manifest_ = *checked;
  for (const package::Segment *segment : manifest_segments(*opened->manifest_))
    if (checksum(opened->content(*segment)) != segment->checksum())
      return corrupt(path, fmt::format("the checksum of the {} bytes at {} does not match: the file is damaged",
                                       segment->size(), segment->offset()));
  uint64_t first = bytes.size(), last = 0;
  for (const package::Parameter *parameter : *opened->manifest_->parameters()) {
    const uint64_t entries = parameter_shape(*parameter).entries;
    first = std::min(first, parameter->offset());
    last = std::max(last, parameter->offset() + (entries - 1) * parameter->entry_stride() + parameter->entry_size());
  }
  opened->weights_ = {std::min(first, last), last};
  return std::shared_ptr<const Package>(std::move(opened));
}

Package::~Package() {
  if (!bytes_.empty())
    ::munmap(const_cast<std::byte *>(bytes_.data()), bytes_.size());
}

std::string_view Package::text(const package::Segment *segment) const {
  if (!segment)
    return {};
  const auto bytes = content(*segment);
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

bool Package::is_end_token(int32_t token) const {
  const auto *tokens = manifest_->text()->end_tokens();
  return tokens && std::find(tokens->begin(), tokens->end(), int64_t(token)) != tokens->end();
}

Status Package::verify(const std::function<bool(uint64_t, uint64_t)> &progress) const {
  constexpr uint64_t kPiece = 16 << 20;
  const Status cancelled(Code::kCancelled, path_ + ": verification was interrupted");
  uint64_t done = 0;
  for (const package::Parameter *parameter : *manifest_->parameters()) {
    ParameterChecksum sum;
    for (uint64_t entry = 0; entry < parameter_shape(*parameter).entries; ++entry)
      for (uint64_t at = 0; at < parameter->entry_size(); at += kPiece) {
        const uint64_t size = std::min(kPiece, parameter->entry_size() - at);
        sum.add(bytes_.subspan(parameter->offset() + entry * parameter->entry_stride() + at, size));
        done += size;
        if (!progress(std::min<uint64_t>(done, bytes_.size()), bytes_.size()))
          return cancelled;
      }
    if (sum.value() != parameter->checksum())
      return corrupt(path_, fmt::format("the checksum of parameter '{}' does not match: its weights are damaged",
                                        parameter->name()->string_view()));
  }
  FP_ASSIGN_OR_RETURN(const PackageHeader header, read_header(path_, bytes_));
  uint64_t end = 0;
  for (const Range &range : used_ranges(*manifest_, header)) {
    for (uint64_t at = end; at < range.first; ++at)
      if (bytes_[at] != std::byte(0))
        return corrupt(path_, fmt::format("expects zero in the padding, got {} at byte {}", int(bytes_[at]), at));
    end = std::max(end, range.second);
  }
  for (uint64_t at = end; at < bytes_.size(); ++at)
    if (bytes_[at] != std::byte(0))
      return corrupt(path_, fmt::format("expects zero after the last segment, got {} at byte {}", int(bytes_[at]), at));
  if (!progress(bytes_.size(), bytes_.size()))
    return cancelled;
  return Status();
}

} // namespace freeport
