// Patterns where Oniguruma and PCRE2 differ, with the matches that Oniguruma (through the tokenizers library) finds,
// and patterns that are refused.
#include "runtime/regular_expression.h"

#include "runtime/pattern_syntax.h"

#include <gtest/gtest.h>

#include <string>

namespace freeport {
namespace {

using Texts = std::vector<std::string>;

Texts matches(std::string_view pattern, std::string_view text) {
  auto expression = RegularExpression::compile(pattern);
  if (!expression.ok())
    return {expression.status().message()};
  std::vector<MatchSpan> spans;
  Status status = expression->find(text, spans);
  if (!status.ok())
    return {status.message()};
  Texts found;
  size_t covered = 0;
  for (const MatchSpan &span : spans) {
    EXPECT_EQ(span.begin, covered) << pattern;
    covered = span.end;
    if (span.is_match)
      found.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  EXPECT_EQ(covered, text.size()) << pattern;
  return found;
}

TEST(RegularExpression, MatchesAsOniguruma) {
  struct Case {
    const char *pattern;
    const char *text;
    Texts found;
  };
  const Case cases[] = {
      {R"(\s+)", "a\u00A0\u180E \u2028b", {"\u00A0", " \u2028"}},
      {R"([^\S\n]+)", "a \n b", {" ", " "}},
      {R"(\w+)", "a\u0301_b\u203Fc-\u00BDd", {"a\u0301_b\u203Fc", "\u00BDd"}},
      {R"([\w]+)", "\u00BDa", {"a"}},
      {R"(\bx)", "x ax \u0301x", {"x"}},
      {R"(\h+)", "xyfF09g", {"fF09"}},
      {R"(.+)", "a\nb", {"a", "b"}},
      {R"((?m:.+))", "a\nb", {"a\nb"}},
      {R"(^.)", "ab\ncd", {"a", "c"}},
      {R"(a(?i)b|c)", "aBC aC", {"aB", "aC"}},
      {R"((?i:k))", "kK\u212A", {"k", "K", "\u212A"}},
      {R"([a-z&&[^aeiou]]+)", "hello", {"h", "ll"}},
      {R"([a[bc]&&[^b]]+)", "abca", {"a", "ca"}},
      {R"([]a]+)", "a]b", {"a]"}},
      {R"([a\-]+)", "a-b", {"a-"}},
      {R"(\p{Han}+)", "\u6F22\u5B57\u3002\u3005\u3006", {"\u6F22\u5B57", "\u3005"}},
      {R"(\p{Letter}+)", "a\u00E91", {"a\u00E9"}},
      {R"(\p{^L}+)", "a12b", {"12"}},
      {R"([[:punct:]]+)", "a+!b", {"+!"}},
      {R"(\p{Punct}+)", "a+!b", {"!"}},
      {R"(\p{N}{1,3}+)", "12345", {"12345"}},
      {R"(\p{N}{1,3})", "12345", {"123", "45"}},
      {R"(a{,2}b)", "aaab", {"aab"}},
      {R"(x{)", "x{", {"x{"}},
      {R"((?<q>.)\k<q>)", "aabcc", {"aa", "cc"}},
      {R"((.)\1)", "aabcc", {"aa", "cc"}},
      {R"(\/\-)", "/-", {"/-"}},
      {R"(\u00e9\x41)", "\u00E9A", {"\u00E9A"}},
      {R"((?#note)a)", "a", {"a"}},
      {R"(a*)", "baac", {"", "aa", ""}},
      {R"(a)", "", {}},
  };
  for (const Case &test : cases)
    EXPECT_EQ(matches(test.pattern, test.text), test.found) << test.pattern;
}

TEST(RegularExpression, LiteralsHaveNoSyntax) {
  auto expression = RegularExpression::literal("a.(");
  ASSERT_TRUE(expression.ok());
  std::vector<MatchSpan> spans;
  ASSERT_TRUE(expression->find("aa.(b", spans).ok());
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_TRUE(spans[1].is_match);
  EXPECT_EQ(spans[1].begin, 1u);
  EXPECT_EQ(spans[1].end, 4u);
}

TEST(RegularExpression, RefusesInWords) {
  struct Case {
    const char *pattern;
    Code code;
    const char *message;
  };
  const Case cases[] = {
      {"(a", Code::kCorrupt, "expects a ) for every ("},
      {"a)", Code::kCorrupt, "expects a ( for every )"},
      {"[a", Code::kCorrupt, "expects a ] for every ["},
      {"[b-a]", Code::kCorrupt, "expects a range that ascends"},
      {"[a&&]", Code::kCorrupt, "expects a set on each side of &&"},
      {"*a", Code::kCorrupt, "expects something to repeat"},
      {"a|+", Code::kCorrupt, "expects something to repeat"},
      {"a\\", Code::kCorrupt, "expects a character behind \\"},
      {"\\p", Code::kCorrupt, "expects a name in braces"},
      {"\\x{110000}", Code::kCorrupt, "expects the hexadecimal number"},
      {"\\xE4", Code::kUnsupported, "expects \\x{...} for characters above 7f"},
      {"\\p{NoSuchScript}", Code::kUnsupported, "PCRE2 understands"},
      {"[[:graph:]]", Code::kUnsupported, "expects [:alnum:]"},
      {"(?x)a", Code::kUnsupported, "expects the options i and m"},
      {"(?i)[\\p{Lu}]", Code::kUnsupported, "no upper- or lower-case property"},
      {"\\Q", Code::kUnsupported, "expects an escape that tokenizers use"},
  };
  for (const Case &test : cases) {
    auto expression = RegularExpression::compile(test.pattern);
    ASSERT_FALSE(expression.ok()) << test.pattern;
    EXPECT_EQ(expression.status().code(), test.code) << expression.status().message();
    EXPECT_NE(expression.status().message().find(test.message), std::string::npos) << expression.status().message();
  }
  EXPECT_EQ(translate_pattern(std::string(20'000, 'a')).status().code(), Code::kUnsupported);
  EXPECT_EQ(translate_pattern(std::string(1'000, '[')).status().code(), Code::kUnsupported);
  EXPECT_EQ(translate_pattern("a" + std::string(1'000, '*')).status().code(), Code::kUnsupported);
}

TEST(RegularExpression, LongTextsNeedNoDeepStack) {
  auto expression = RegularExpression::compile(R"((?:[\w&&[^a]]|b)+c?|\s)");
  ASSERT_TRUE(expression.ok()) << expression.status().message();
  std::vector<MatchSpan> spans;
  ASSERT_TRUE(expression->find(std::string(500'000, 'b'), spans).ok());
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].end, 500'000u);
}

} // namespace
} // namespace freeport
