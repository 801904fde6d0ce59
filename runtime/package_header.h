// The first 64 bytes of a `model.port` file (docs/package-format.md), shared by the writer and the reader.
#pragma once

#include <cstdint>

namespace freeport {

constexpr char kPackageMagic[8] = {'F', 'R', 'E', 'E', 'P', 'O', 'R', 'T'};
constexpr uint32_t kPackageVersion = 1;
constexpr uint64_t kSegmentAlignment = 64 * 1024;

/// Little-endian; `header_checksum` is the XXH3-64 of the 48 bytes before it.
struct PackageHeader {
  char magic[8];
  uint32_t version;
  uint32_t reserved; ///< zero
  uint64_t manifest_offset;
  uint64_t manifest_size;
  uint64_t manifest_checksum; ///< XXH3-64
  uint64_t file_size;
  uint64_t header_checksum;
  uint64_t padding; ///< zero
};
static_assert(sizeof(PackageHeader) == 64);

} // namespace freeport
