// Writes a package: streams packed weights from the checkpoint to the file in bounded memory, then the other segments,
// then the manifest. The file appears under its name only when it is whole.
#pragma once

#include "compiler/checkpoint/Checkpoint.h"
#include "compiler/package/Pack.h"

#include "llvm/ADT/STLFunctionalExtras.h"

#include <string>
#include <vector>

namespace freeport {

/// Where a parameter lies in the file.
struct Place {
  uint64_t offset = 0, entrySize = 0, entryStride = 0, checksum = 0;
};

struct FileSegment {
  uint64_t offset = 0, size = 0, checksum = 0;
};

class PackageWriter {
public:
  /// Opens a temporary file beside `path`, and removes those that killed compiles left there.
  static llvm::Expected<PackageWriter> create(llvm::StringRef path);
  PackageWriter(PackageWriter &&);
  PackageWriter &operator=(PackageWriter &&) = delete;
  /// Removes the temporary file unless `finish` succeeded.
  ~PackageWriter();

  /// Packs and writes all parameters; `progress(done, total)` is told bytes and returns false to cancel.
  llvm::Expected<std::vector<Place>> writeWeights(llvm::ArrayRef<ParameterPlan> plans,
                                                  const checkpoint::Checkpoint &checkpoint,
                                                  llvm::function_ref<bool(uint64_t, uint64_t)> progress);
  /// Writes the first bytes of another package: its header, which `seal` replaces, and its weights.
  llvm::Error writeWeights(llvm::StringRef begin, llvm::function_ref<bool(uint64_t, uint64_t)> progress);
  /// Forgets all that lies behind the weights, whose end is at `weightsEnd`.
  llvm::Error truncate(uint64_t weightsEnd);
  llvm::Expected<FileSegment> writeSegment(llvm::StringRef bytes);
  /// Writes the manifest and the header; the temporary file is then a package.
  llvm::Error seal(llvm::StringRef manifest);
  const std::string &temporaryPath() const { return temporary; }
  /// Seals the file and gives it its name.
  llvm::Error finish(llvm::StringRef manifest);

private:
  PackageWriter() = default;
  llvm::Error write(uint64_t offset, const void *bytes, size_t size);
  /// The same behind all that was appended before, in pieces that `flush` ends; the gap between becomes zeros.
  llvm::Error append(uint64_t offset, llvm::ArrayRef<uint8_t> bytes);
  llvm::Error flush();
  llvm::Error ioError(llvm::StringRef what) const;

  std::string path, temporary;
  int handle = -1;
  uint64_t end = 0;
  std::vector<uint8_t> pending; ///< appended, not yet written
  uint64_t pendingOffset = 0;
};

} // namespace freeport
