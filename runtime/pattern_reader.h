// Reading the characters and bracketed sets of an Oniguruma pattern. A set becomes a PCRE2 set, or, where it nests or
// intersects, a group of alternatives and lookaheads that is one character wide.
#pragma once

#include "runtime/status.h"

#include <optional>
#include <string>
#include <string_view>

namespace freeport {

/// One character, or the content of a set that may be negated.
struct PatternItem {
  std::optional<char32_t> character;
  std::string set;
  bool negated = false;

  /// The item outside brackets.
  std::string expression() const;
};

/// A bracketed set: plain content, or the expression of its union, intersection or complement.
struct PatternSet {
  bool plain = true;
  bool negated = false;
  std::string content;

  std::string expression() const { return plain ? (negated ? "[^" : "[") + content + "]" : content; }
};

/// A position in a pattern, and what can be read there.
class PatternReader {
public:
  explicit PatternReader(std::string_view pattern) : pattern_(pattern) {}

protected:
  bool at_end() const { return position_ >= pattern_.size(); }
  bool next_is(std::string_view text) const { return pattern_.substr(position_, text.size()) == text; }
  bool next_is_digit() const { return !at_end() && pattern_[position_] >= '0' && pattern_[position_] <= '9'; }
  bool take(std::string_view text);
  Status corrupt(std::string_view what) const { return failure(Code::kCorrupt, what); }
  Status unsupported(std::string_view what) const { return failure(Code::kUnsupported, what); }

  /// The escape at the position (behind its backslash) if it stands for a character or a set; else no value.
  Result<std::optional<PatternItem>> character_escape(bool in_set);
  /// The set at the position (behind its opening bracket), with its closing bracket.
  Result<PatternSet> set(int depth = 0);

  std::string_view pattern_;
  size_t position_ = 0;
  bool caseless_ = false; ///< under the option i

private:
  Status failure(Code code, std::string_view what) const;
  Result<char32_t> hexadecimal(size_t minimum, size_t maximum);
  Result<PatternItem> property(bool negated, bool in_set);
  Status check_case(std::string_view name) const;
  Result<PatternItem> named_set();
  Result<PatternItem> set_item();
};

} // namespace freeport
