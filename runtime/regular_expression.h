// The regular expressions of tokenizer.json. They are written for Oniguruma, so they are first rewritten for PCRE2
// (see pattern_syntax.h), then run with limits, so that a hostile pattern ends with a Status.
#pragma once

#include "runtime/status.h"
#include "runtime/utf8.h"

#include <memory>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;

namespace freeport {

/// A stretch of text that a pattern matched or left between matches. A match may be empty.
struct MatchSpan {
  size_t begin = 0;
  size_t end = 0;
  bool is_match = false;
};

/// A compiled pattern. Concurrent const calls are safe.
class RegularExpression {
public:
  /// From Oniguruma's syntax; kCorrupt for a malformed pattern, kUnsupported for one that PCRE2 cannot express.
  static Result<RegularExpression> compile(std::string_view pattern);
  /// Matches `text` itself.
  static Result<RegularExpression> literal(std::string_view text);

  /// Appends spans that cover `text` (valid UTF-8) from left to right: matches, and what lies between them.
  Status find(std::string_view text, std::vector<MatchSpan> &spans) const;

private:
  struct Free {
    void operator()(pcre2_real_code_8 *code) const;
    void operator()(pcre2_real_match_context_8 *context) const;
  };
  static Result<RegularExpression> compile_with(std::string_view pattern, std::string_view shown, uint32_t options);

  std::unique_ptr<pcre2_real_code_8, Free> code_;
  std::unique_ptr<pcre2_real_match_context_8, Free> context_;
};

} // namespace freeport
