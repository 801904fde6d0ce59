// Oniguruma's regular expressions in PCRE2's syntax: tokenizer.json is written for the former, Freeport runs the
// latter. What differs is spelled out (\s, \w, \b, \h, scripts, set intersections, possessive-looking intervals,
// options).
#pragma once

#include "runtime/status.h"

#include <string>
#include <string_view>

namespace freeport {

/// The PCRE2 pattern (for UTF, UCP and MULTILINE modes) that matches what `pattern` matches in Oniguruma's default
/// syntax. kCorrupt where Oniguruma would refuse too, kUnsupported for constructs that tokenizers do not use.
Result<std::string> translate_pattern(std::string_view pattern);

} // namespace freeport
