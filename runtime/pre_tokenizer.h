// Cutting text into the pieces that byte pairs are merged in: the `pre_tokenizer` of tokenizer.json. A list of stages
// over one text and its pieces; ByteLevel also rewrites the text, one visible character for each byte.
#pragma once

#include "runtime/normalizer.h"
#include "runtime/status.h"

#include <nlohmann/json_fwd.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace freeport {

/// A text and the pieces of it that count, ascending and without empty ones.
struct Pieces {
  std::string text;
  std::vector<Span> spans;
};

/// A chain of pre-tokenisers, perhaps empty. Concurrent const calls are safe.
class PreTokenizer {
public:
  /// From the `pre_tokenizer` value, null included.
  static Result<PreTokenizer> create(const nlohmann::json &description);

  /// Cuts `text`, which must be valid UTF-8.
  Result<Pieces> split(std::string text) const;

private:
  enum class Kind { kSplit, kDigits, kAddPrefixSpace, kBytes };
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Stage {
    Kind kind;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
    std::optional<RegularExpression> pattern;
  };
  Status add(const nlohmann::json &description);
  Status add_split(const nlohmann::json &description);
  Status add_byte_level(const nlohmann::json &description);
  static Status split_pieces(const Stage &stage, Pieces &pieces);
  static void append_pieces(Behavior behavior, const std::vector<MatchSpan> &matches, size_t offset,
                            std::vector<Span> &spans);
  static void add_prefix_spaces(Pieces &pieces);

  std::vector<Stage> stages_;
};

/// The visible stand-in for each byte that ByteLevel uses ("Ġ" for a space), as a code point below U+0180.
char32_t byte_to_character(unsigned char byte);

/// Appends the bytes that the characters of `token` stand for; false, with nothing appended, if one stands for none.
bool append_token_bytes(std::string_view token, std::string &bytes);

} // namespace freeport
