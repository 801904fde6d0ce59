// A shared object loaded from memory: the bytes go to an anonymous file, which the dynamic loader opens by its
// descriptor.
#pragma once

#include "runtime/status.h"

#include <cstddef>
#include <span>

namespace freeport::cpu {

/// Owns a loaded shared object; symbols live as long as it does.
class ElfLibrary {
public:
  /// Checks that `content` is a shared object for this processor's architecture whose segments lie inside it, then
  /// loads it. Loading runs no code of ours; the caller vouches for the bytes (a package's checksums are verified
  /// before).
  static Result<ElfLibrary> load(std::span<const std::byte> content);

  ElfLibrary(ElfLibrary &&other) noexcept;
  ElfLibrary &operator=(ElfLibrary &&other) noexcept;
  ~ElfLibrary();

  /// The address of `name`, or null.
  void *find(const char *name) const;

private:
  ElfLibrary(int file, void *handle) : file_(file), handle_(handle) {}

  int file_;
  void *handle_;
};

} // namespace freeport::cpu
