// What the FlatBuffers verifier cannot know of a manifest: that its numbers agree with the file and with each other.
#pragma once

#include "runtime/package_generated.h"
#include "runtime/status.h"

#include <cstddef>
#include <span>
#include <vector>

namespace freeport {

/// The manifest in `bytes`, which must outlive it, of a package of `file_size` bytes: verified, with every rule of
/// docs/package-format.md checked but the checksums. kCorrupt says what was expected, kUnsupported names a version.
Result<const package::Manifest *> check_manifest(std::span<const std::byte> bytes, uint64_t file_size);

/// Every segment of a checked manifest: executables, graph, tokenizer, its configuration, the chat template.
std::vector<const package::Segment *> manifest_segments(const package::Manifest &manifest);

} // namespace freeport
