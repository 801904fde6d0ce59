// Every pre-tokeniser and split behaviour with the pieces that the tokenizers library makes.
#include "runtime/pre_tokenizer.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fmt/format.h>

namespace freeport {
namespace {

using Texts = std::vector<std::string>;

Texts split(const std::string &description, std::string_view text) {
  auto pre_tokenizer = PreTokenizer::create(nlohmann::json::parse(description));
  if (!pre_tokenizer.ok())
    return {pre_tokenizer.status().message()};
  auto pieces = pre_tokenizer->split(std::string(text));
  if (!pieces.ok())
    return {pieces.status().message()};
  Texts texts;
  for (const Span &span : pieces->spans)
    texts.push_back(pieces->text.substr(span.begin, span.end - span.begin));
  return texts;
}

TEST(PreTokenizer, NullKeepsTheText) {
  EXPECT_EQ(split("null", "a b"), (Texts{"a b"}));
  EXPECT_EQ(split("null", ""), Texts{});
}

TEST(PreTokenizer, SplitBehaviors) {
  struct Case {
    const char *behavior;
    bool invert;
    Texts pieces;
  };
  const Case cases[] = {
      {"Removed", false, {"the", "final", "countdown"}},
      {"Removed", true, {"-", "-", "-", "-"}},
      {"Isolated", false, {"the", "-", "final", "-", "-", "countdown", "-"}},
      {"Isolated", true, {"the", "-", "final", "-", "-", "countdown", "-"}},
      {"MergedWithPrevious", false, {"the-", "final-", "-", "countdown-"}},
      {"MergedWithPrevious", true, {"the", "-final", "-", "-countdown", "-"}},
      {"MergedWithNext", false, {"the", "-final", "-", "-countdown", "-"}},
      {"MergedWithNext", true, {"the-", "final-", "-", "countdown-"}},
      {"Contiguous", false, {"the", "-", "final", "--", "countdown", "-"}},
      {"Contiguous", true, {"the", "-", "final", "--", "countdown", "-"}},
  };
  for (const Case &test : cases) {
    for (const char *pattern : {R"({"String": "-"})", R"({"Regex": "-"})"}) {
      std::string description = fmt::format(R"({{"type": "Split", "pattern": {}, "behavior": "{}", "invert": {}}})",
                                            pattern, test.behavior, test.invert);
      EXPECT_EQ(split(description, "the-final--countdown-"), test.pieces) << description;
    }
  }
}

TEST(PreTokenizer, Digits) {
  std::string text = "a12 \u00BD\u2167\u4E09\u0663b";
  EXPECT_EQ(split(R"({"type": "Digits", "individual_digits": true})", text),
            (Texts{"a", "1", "2", " ", "\u00BD", "\u2167", "\u4E09", "\u0663", "b"}));
  EXPECT_EQ(split(R"({"type": "Digits", "individual_digits": false})", text),
            (Texts{"a", "12", " ", "\u00BD\u2167", "\u4E09", "\u0663", "b"}));
}

TEST(PreTokenizer, ByteLevel) {
  auto byte_level = [](bool space, bool regex) {
    return fmt::format(R"({{"type": "ByteLevel", "add_prefix_space": {}, "trim_offsets": true, "use_regex": {}}})",
                       space, regex);
  };
  std::string text = "It's 12  \u00E9\n";
  EXPECT_EQ(split(byte_level(true, true), text),
            (Texts{"\u0120It", "'s", "\u012012", "\u0120", "\u0120\u00C3\u00A9", "\u010A"}));
  EXPECT_EQ(split(byte_level(true, false), text), (Texts{"\u0120It's\u012012\u0120\u0120\u00C3\u00A9\u010A"}));
  EXPECT_EQ(split(byte_level(false, true), text),
            (Texts{"It", "'s", "\u012012", "\u0120", "\u0120\u00C3\u00A9", "\u010A"}));
  EXPECT_EQ(split(byte_level(false, false), text), (Texts{"It's\u012012\u0120\u0120\u00C3\u00A9\u010A"}));
  // Within a sequence each piece gets its space.
  EXPECT_EQ(split(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},)" +
                      byte_level(true, false) + "]}",
                  "a1 b"),
            (Texts{"\u0120a", "\u01201", "\u0120b"}));
}

TEST(PreTokenizer, BytesAndCharactersPairUp) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    append_utf8(byte_to_character(static_cast<unsigned char>(byte)), token);
    ASSERT_TRUE(append_token_bytes(token, bytes));
    EXPECT_EQ(static_cast<unsigned char>(bytes.back()), byte);
  }
  EXPECT_FALSE(append_token_bytes("a ", bytes)); // a space has a stand-in and stands for nothing itself
  EXPECT_EQ(bytes.size(), 256u);
}

} // namespace
} // namespace freeport
