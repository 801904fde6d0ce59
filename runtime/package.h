// A `model.port` file, mapped and checked (docs/package-format.md). Whoever holds a Package may use every offset, index
// and size expression of its manifest without looking again.
#pragma once

#include "runtime/block_format.h"
#include "runtime/package_generated.h"
#include "runtime/status.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace freeport {

/// The symbols of a step, whose values the runtime knows before it: rows of the step, rows that want logits, sequences
/// (rows of the page table) and pages in a row of the page table. `symbol_name` gives their names in a manifest.
enum class Symbol { tokens, logit_rows, sequences, table_pages };
constexpr size_t kSymbols = 4;
std::string_view symbol_name(Symbol symbol);

/// The inputs that a step fills, 32-bit integers all: token_ids[tokens], positions[tokens], sequences[tokens] (row of
/// the page table), page_table[sequences][table_pages], logit_rows[logit_rows].
enum class Input { token_ids, positions, sequences, page_table, logit_rows };
constexpr size_t kInputs = 5;
std::string_view input_name(Input input);

/// Tokens of a page.
constexpr int64_t kPageTokens = 32;

/// Read-only, so that concurrent calls are safe. The file must not shrink while it is open.
class Package {
public:
  /// Maps the file and checks everything but the weights. kIo and kNotFound for files that cannot be read, kCorrupt
  /// with the path and what is wrong, kUnsupported for versions that this build does not know.
  static Result<std::shared_ptr<const Package>> open(const std::string &path);
  ~Package();
  Package(const Package &) = delete;
  Package &operator=(const Package &) = delete;

  const std::string &path() const { return path_; }
  const package::Manifest &manifest() const { return *manifest_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  std::span<const std::byte> content(const package::Segment &segment) const {
    return bytes_.subspan(segment.offset(), segment.size());
  }
  /// A segment as text, empty where it is null.
  std::string_view text(const package::Segment *segment) const;
  /// Whether generation stops at `token`.
  bool is_end_token(int32_t token) const;
  /// The file's range that holds all parameters.
  std::pair<uint64_t, uint64_t> weights() const { return weights_; }

  /// Reads every byte: weights against their checksums, and padding, which must be zero. `progress(done, total)` is
  /// told bytes and returns false to cancel.
  Status verify(const std::function<bool(uint64_t, uint64_t)> &progress) const;

private:
  Package(std::string path, std::span<const std::byte> bytes) : path_(std::move(path)), bytes_(bytes) {}

  std::string path_;
  std::span<const std::byte> bytes_;
  const package::Manifest *manifest_ = nullptr;
  std::pair<uint64_t, uint64_t> weights_{0, 0};
};

/// Rows and inputs of one entry of a parameter, and how many entries it has; rank 1 counts as one row.
struct ParameterShape {
  uint64_t entries, rows, inputs;
};
ParameterShape parameter_shape(const package::Parameter &parameter);

} // namespace freeport
