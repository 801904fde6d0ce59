// Thin over PCRE2: UTF mode with Unicode properties, just-in-time compiled where the system allows it, and iteration
// that skips an empty match right behind the previous match, as Oniguruma's bindings do.
#include "runtime/regular_expression.h"

#include "runtime/pattern_syntax.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

namespace freeport {

namespace {

// Real patterns need a few dozen steps for a match; these bounds keep a hostile one below a second.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKibibytes = 256 * 1024;

struct FreeMatchData {
  void operator()(pcre2_match_data *data) const { pcre2_match_data_free(data); }
};

std::string error_text(int error) {
  PCRE2_UCHAR buffer[160];
  pcre2_get_error_message(error, buffer, sizeof buffer);
  return reinterpret_cast<const char *>(buffer);
}

} // namespace

void RegularExpression::Free::operator()(pcre2_code *code) const { pcre2_code_free(code); }
void RegularExpression::Free::operator()(pcre2_match_context *context) const { pcre2_match_context_free(context); }

Result<RegularExpression> RegularExpression::compile(std::string_view pattern) {
  FP_ASSIGN_OR_RETURN(std::string translated, translate_pattern(pattern));
  // In Oniguruma ^ and $ always work on lines.
  return compile_with(translated, pattern, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE);
}

Result<RegularExpression> RegularExpression::literal(std::string_view text) {
  return compile_with(text, text, PCRE2_UTF | PCRE2_LITERAL);
}

Result<RegularExpression> RegularExpression::compile_with(std::string_view pattern, std::string_view shown,
                                                          uint32_t options) {
  std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context *)> compile_context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  RegularExpression result;
  result.context_.reset(pcre2_match_context_create(nullptr));
  if (!compile_context || !result.context_)
    return Status(Code::kOutOfMemory, "regular expression: no memory for a pattern");
  pcre2_set_newline(compile_context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_match_limit(result.context_.get(), kMatchLimit);
  pcre2_set_heap_limit(result.context_.get(), kHeapLimitKibibytes);

  int error = 0;
  PCRE2_SIZE offset = 0;
  result.code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                                   &offset, compile_context.get()));
  if (!result.code_)
    return Status(Code::kUnsupported, fmt::format("regular expression: expects a pattern that PCRE2 understands, got "
                                                  "\"{}\" ({})",
                                                  replace_invalid_utf8(shown.substr(0, 200)), error_text(error)));
  // Without executable memory matching is slower, not wrong.
  pcre2_jit_compile(result.code_.get(), PCRE2_JIT_COMPLETE);
  return result;
}

Status RegularExpression::find(std::string_view text, std::vector<MatchSpan> &spans) const {
  std::unique_ptr<pcre2_match_data, FreeMatchData> data(pcre2_match_data_create(1, nullptr));
  if (!data)
    return Status(Code::kOutOfMemory, "regular expression: no memory for a match");
  const PCRE2_SIZE *range = pcre2_get_ovector_pointer(data.get());
  auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  if (text.empty()) { // by convention no pattern matches in an empty text
    spans.push_back({0, 0, false});
    return Status();
  }
  size_t covered = 0;
  bool matched_before = false;
  for (size_t start = 0; start <= text.size();) {
    int found = pcre2_match(code_.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK, data.get(), context_.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) // the interpreter keeps its stack on the heap
      found = pcre2_match(code_.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(),
                          context_.get());
    if (found == PCRE2_ERROR_NOMATCH)
      break;
    if (found < 0)
      return Status(Code::kOutOfRange,
                    "regular expression: expects a pattern that ends within its limits, got: " + error_text(found));
    size_t begin = range[0], end = range[1];
    if (begin > end) // \K inside a lookahead
      return Status(Code::kUnsupported, "regular expression: expects matches that end after they begin");
    if (begin == end && matched_before && end == covered) {
      // An empty match right behind a match is none; look further from the next character.
      if (start == text.size())
        break;
      next_character(text, start);
      continue;
    }
    if (begin < covered)
      return Status(Code::kUnsupported, "regular expression: expects matches that follow each other");
    if (covered != begin)
      spans.push_back({covered, begin, false});
    spans.push_back({begin, end, true});
    covered = start = end;
    matched_before = true;
  }
  if (covered != text.size())
    spans.push_back({covered, text.size(), false});
  return Status();
}

} // namespace freeport
