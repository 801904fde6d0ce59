// Normalisation of text before it is split: the `normalizer` of tokenizer.json. A list of steps, each of which rewrites
// the whole text.
#pragma once

#include "runtime/regular_expression.h"
#include "runtime/status.h"

#include <nlohmann/json_fwd.hpp>

#include <optional>
#include <string>
#include <vector>

namespace freeport {

/// Texts are refused above this size, before and after normalisation, so that no step can exhaust memory.
constexpr size_t kMaximumText = size_t{1} << 28;

/// A chain of normalisers, perhaps empty. Concurrent const calls are safe.
class Normalizer {
public:
  /// From the `normalizer` value, null included.
  static Result<Normalizer> create(const nlohmann::json &description);

  /// Rewrites `text`, which must be valid UTF-8 and stays so.
  Status apply(std::string &text) const;

private:
  enum class Kind { kUnicode, kLowercase, kStripAccents, kStrip, kPrepend, kReplace };
  struct Step {
    Kind kind;
    bool compose = false;       ///< kUnicode: NFC, NFKC
    bool compatibility = false; ///< kUnicode: NFKC, NFKD
    bool strip_left = false;
    bool strip_right = false;
    std::string content; ///< what is prepended or put in place
    std::optional<RegularExpression> pattern;
  };
  Status add(const nlohmann::json &description);

  std::vector<Step> steps_;
};

/// The `pattern` of a Replace or Split: {"String": ...} or {"Regex": ...}.
Result<RegularExpression> pattern_field(const nlohmann::json &object);

} // namespace freeport
