// Every normaliser with the text that the tokenizers library makes.
#include "runtime/normalizer.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace freeport {
namespace {

std::string normalize(const std::string &description, std::string text) {
  auto normalizer = Normalizer::create(nlohmann::json::parse(description));
  if (!normalizer.ok())
    return normalizer.status().message();
  Status status = normalizer->apply(text);
  return status.ok() ? text : status.message();
}

const std::string kSample = "a\u0301\uFB01\u212B\u1100\u1161\u03D3\u0130\u03A3";

TEST(Normalizer, UnicodeForms) {
  EXPECT_EQ(normalize(R"({"type": "NFC"})", kSample), "\u00E1\uFB01\u00C5\uAC00\u03D3\u0130\u03A3");
  EXPECT_EQ(normalize(R"({"type": "NFD"})", kSample), "a\u0301\uFB01A\u030A\u1100\u1161\u03D2\u0301I\u0307\u03A3");
  EXPECT_EQ(normalize(R"({"type": "NFKC"})", kSample), "\u00E1fi\u00C5\uAC00\u038E\u0130\u03A3");
  EXPECT_EQ(normalize(R"({"type": "NFKD"})", kSample), "a\u0301fiA\u030A\u1100\u1161\u03A5\u0301I\u0307\u03A3");
  EXPECT_EQ(normalize(R"({"type": "NFD"})", "e\u0301\u0323"), "e\u0323\u0301");
  EXPECT_EQ(normalize(R"({"type": "NFC"})", "e\u0301\u0323"), "\u1EB9\u0301");
}

TEST(Normalizer, LongRunsOfMarksTakeNoQuadraticTime) {
  std::string text = "e", below, above;
  for (int i = 0; i < 200'000; ++i) {
    text += "\u0301\u0323";
    below += "\u0323";
    above += "\u0301";
  }
  EXPECT_EQ(normalize(R"({"type": "NFD"})", text), "e" + below + above);
}

TEST(Normalizer, CaseAndAccents) {
  EXPECT_EQ(normalize(R"({"type": "Lowercase"})", kSample), "a\u0301\uFB01\u00E5\u1100\u1161\u03D3i\u0307\u03C3");
  EXPECT_EQ(normalize(R"({"type": "StripAccents"})", "e\u0301\u0903\u20DDx"), "ex");
}

TEST(Normalizer, StripPrependReplace) {
  std::string text = " \u3000a b\t ";
  EXPECT_EQ(normalize(R"({"type": "Strip", "strip_left": true, "strip_right": false})", text), "a b\t ");
  EXPECT_EQ(normalize(R"({"type": "Strip", "strip_left": false, "strip_right": true})", text), " \u3000a b");
  EXPECT_EQ(normalize(R"({"type": "Strip", "strip_left": true, "strip_right": true})", " \u3000\t "), "");
  EXPECT_EQ(normalize(R"({"type": "Prepend", "prepend": "_"})", "a"), "_a");
  EXPECT_EQ(normalize(R"({"type": "Prepend", "prepend": "_"})", ""), "");
  EXPECT_EQ(normalize(R"({"type": "Replace", "pattern": {"String": "a."}, "content": "x"})", "a.ab"), "xab");
  EXPECT_EQ(normalize(R"({"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": "_"})", "a \n b"), "a_b");
}

TEST(Normalizer, SequencesRunInOrder) {
  EXPECT_EQ(normalize(R"({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"},
                          {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}]})",
                      "\u00C9t\u00E9"),
            "ete");
  EXPECT_EQ(normalize("null", kSample), kSample);
}

TEST(Normalizer, BoundsWhatStepsCanGrow) {
  std::string step =
      R"({"type": "Replace", "pattern": {"String": "a"}, "content": ")" + std::string(100'000, 'a') + R"("})";
  std::string sequence = R"({"type": "Sequence", "normalizers": [)" + step + "," + step + "]}";
  EXPECT_NE(normalize(sequence, "a").find("expects at most"), std::string::npos);
}

} // namespace
} // namespace freeport
