// Tokenizers of four model families against ids and texts that the tokenizers library computed, then what those cases
// do not reach: streaming, framing, added tokens with options, hostile and malformed files.
#include "runtime/tokenizer.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

namespace freeport {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

std::string read_file(const std::string &path) {
  std::ifstream stream(std::string(FREEPORT_SOURCE_DIR) + "/" + path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path;
  std::stringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::unique_ptr<Tokenizer> load(const std::string &folder) {
  auto tokenizer =
      Tokenizer::create(read_file(folder + "/tokenizer.json"), read_file(folder + "/tokenizer_config.json"));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? std::move(tokenizer).value() : nullptr;
}

Ids encode(const Tokenizer &tokenizer, std::string_view text, bool special = false) {
  auto ids = tokenizer.encode(text, {special});
  EXPECT_TRUE(ids.ok()) << ids.status().message();
  return ids.ok() ? *ids : Ids{-1};
}

std::string decode(const Tokenizer &tokenizer, const Ids &ids, bool skip_special = false) {
  auto text = tokenizer.decode(ids, skip_special);
  EXPECT_TRUE(text.ok()) << text.status().message();
  return text.ok() ? *text : "?";
}

std::string stream(const Tokenizer &tokenizer, const Ids &ids) {
  Detokenizer detokenizer(tokenizer, /*skip_special_tokens=*/false);
  std::string text;
  for (int32_t id : ids)
    text += detokenizer.push(id).value();
  return text + detokenizer.finish();
}

class GoldenTokenizer : public testing::TestWithParam<const char *> {};

TEST_P(GoldenTokenizer, EncodesAndDecodesAsTheReference) {
  std::string folder = std::string("test/data/tokenizers/") + GetParam();
  auto tokenizer = load(folder);
  ASSERT_NE(tokenizer, nullptr);
  Json golden = Json::parse(read_file(folder + "/cases.json"));
  ASSERT_GT(golden["cases"].size(), 90u);
  for (const Json &golden_case : golden["cases"]) {
    auto text = golden_case["text"].get<std::string>();
    SCOPED_TRACE(text);
    auto ids = golden_case["ids"].get<Ids>();
    auto with_special = golden_case["ids_with_special"].get<Ids>();
    EXPECT_EQ(encode(*tokenizer, text), ids);
    EXPECT_EQ(encode(*tokenizer, text, true), with_special);
    EXPECT_EQ(decode(*tokenizer, ids), golden_case["decoded"].get<std::string>());
    EXPECT_EQ(decode(*tokenizer, with_special, true), golden_case["decoded_skip_special"].get<std::string>());
    EXPECT_EQ(stream(*tokenizer, ids), golden_case["decoded"].get<std::string>());
  }
  for (const Json &chat : golden["chats"]) {
    if (chat.contains("rendered")) {
      EXPECT_EQ(encode(*tokenizer, chat["rendered"].get<std::string>()), chat["ids"].get<Ids>());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenTokenizer,
                         testing::Values("llama3", "qwen2", "deepseek_v3", "deepseek_digits"));

TEST(Tokenizer, EncodesThePromptsOfTinyMoe) {
  auto tokenizer = load("examples/tiny-moe");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocabulary_size(), 4096u);
  Json golden = Json::parse(read_file("examples/tiny-moe/golden.json"));
  for (const Json &prompt : golden["greedy"]["prompts"]) {
    Ids ids = prompt["prompt_ids"].get<Ids>();
    auto text = prompt["prompt_text"].get<std::string>();
    // Prompts from the chat template hold the begin token already.
    bool rendered = text.starts_with("<\uFF5Cbegin");
    EXPECT_EQ(encode(*tokenizer, text, /*special=*/!rendered), ids);
    EXPECT_EQ(decode(*tokenizer, ids, /*skip_special=*/!rendered), text);
  }
  std::string text = read_file("examples/tiny-moe/eval.txt");
  Ids ids = encode(*tokenizer, text);
  EXPECT_EQ(ids.size(), golden["perplexity"]["tokens"].get<size_t>());
  EXPECT_EQ(decode(*tokenizer, ids), text);
}

TEST(Tokenizer, KnowsItsTokens) {
  auto tokenizer = load("test/data/tokenizers/llama3");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocabulary_size(), 528u);
  EXPECT_EQ(tokenizer->token_to_id("<|begin_of_text|>"), 520);
  EXPECT_EQ(tokenizer->token_to_id("\u0120"), 220);
  EXPECT_EQ(tokenizer->token_to_id("no such token"), std::nullopt);
  EXPECT_TRUE(tokenizer->is_special(520));
  for (int32_t id : {-1, 0, 519, 528, INT32_MAX})
    EXPECT_FALSE(tokenizer->is_special(id)) << id;
}

TEST(Tokenizer, ReplacesWhatIsNotUtf8) {
  auto tokenizer = load("test/data/tokenizers/llama3");
  ASSERT_NE(tokenizer, nullptr);
  // A stray byte, a cut character, a surrogate, an overlong form: one replacement for each maximal prefix.
  EXPECT_EQ(encode(*tokenizer, "a\xFF\xE2\x82z"), encode(*tokenizer, "a\uFFFD\uFFFDz"));
  EXPECT_EQ(encode(*tokenizer, "\xED\xA0\x80"), encode(*tokenizer, "\uFFFD\uFFFD\uFFFD"));
  EXPECT_EQ(encode(*tokenizer, "\xC0\x80"), encode(*tokenizer, "\uFFFD\uFFFD"));
}

TEST(Tokenizer, PassesOverIdsWithoutAToken) {
  auto tokenizer = load("test/data/tokenizers/llama3");
  ASSERT_NE(tokenizer, nullptr);
  Ids ids = {64, -1, 528, INT32_MAX, INT32_MIN, 65};
  EXPECT_EQ(decode(*tokenizer, ids), "ab");
  EXPECT_EQ(stream(*tokenizer, ids), "ab");
}

TEST(Tokenizer, ServesThreadsAtOnce) {
  auto tokenizer = load("test/data/tokenizers/qwen2");
  ASSERT_NE(tokenizer, nullptr);
  std::string text = read_file("examples/tiny-moe/eval.txt");
  Ids expected = encode(*tokenizer, text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids &result : results)
    threads.emplace_back([&] { result = encode(*tokenizer, text); });
  for (std::thread &thread : threads)
    thread.join();
  for (const Ids &result : results)
    EXPECT_EQ(result, expected);
}

TEST(Detokenizer, HoldsHalfCharactersBack) {
  auto tokenizer = load("test/data/tokenizers/llama3");
  ASSERT_NE(tokenizer, nullptr);
  Ids ids;
  for (const char *byte : {"\u00F0", "\u0141", "\u013A", "\u0122"}) // the bytes f0 9f 98 80 of U+1F600
    ids.push_back(tokenizer->token_to_id(byte).value_or(-1));
  Detokenizer detokenizer(*tokenizer, /*skip_special_tokens=*/true);
  EXPECT_EQ(detokenizer.push(ids[0]).value(), "");
  EXPECT_EQ(detokenizer.push(ids[1]).value(), "");
  EXPECT_EQ(detokenizer.push(ids[2]).value(), "");
  EXPECT_EQ(detokenizer.push(520).value(), ""); // skipped, so it does not cut the character
  EXPECT_EQ(detokenizer.push(ids[3]).value(), "\U0001F600");
  EXPECT_EQ(detokenizer.finish(), "");

  EXPECT_EQ(detokenizer.push(ids[0]).value(), "");
  EXPECT_EQ(detokenizer.push(64).value(), "\uFFFDa");
  EXPECT_EQ(detokenizer.push(ids[0]).value(), "");
  EXPECT_EQ(detokenizer.push(ids[1]).value(), "");
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.finish(), "");
}

/// A byte-level tokenizer over "a", "b", "c", "ab", "abc" and a space, to which `change` is applied (RFC 7396).
Json small_file(const Json &change) {
  Json file = Json::parse(R"({
    "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "\u0120": 5},
              "merges": ["a b", ["ab", "c"]]}})");
  file.merge_patch(change);
  return file;
}

Result<std::unique_ptr<Tokenizer>> create(const Json &change, const std::string &config = "") {
  return Tokenizer::create(small_file(change).dump(), config);
}

Ids encode_small(const Json &change, std::string_view text, bool special = false) {
  auto tokenizer = create(change);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return tokenizer.ok() ? encode(**tokenizer, text, special) : Ids{-1};
}

const Json kUnchanged = Json::object();

TEST(Tokenizer, MergesByRankFromBothForms) {
  EXPECT_EQ(encode_small(kUnchanged, "abcab a"), (Ids{4, 3, 5, 0}));
  EXPECT_EQ(encode_small(kUnchanged, ""), Ids{});
  // Characters outside the vocabulary vanish, or become the unknown token.
  EXPECT_EQ(encode_small(kUnchanged, "a?b"), (Ids{3}));
  Json unknown = Json::parse(R"({"model": {"unk_token": "c"}})");
  EXPECT_EQ(encode_small(unknown, "b??a"), (Ids{1, 2, 2, 0}));
  unknown["model"]["fuse_unk"] = true;
  EXPECT_EQ(encode_small(unknown, "b??a"), (Ids{1, 2, 0}));
  Json other = Json::parse(R"({"model": {"vocab": {"bc": 6}, "merges": ["b c"]}})");
  EXPECT_EQ(encode_small(other, "abc"), (Ids{0, 6}));
  other["model"]["ignore_merges"] = true;
  EXPECT_EQ(encode_small(other, "abc"), (Ids{4}));
}

Json added(const char *options) {
  Json token = Json::parse(R"({"content": "<x>", "special": true, "normalized": false})");
  token.update(Json::parse(options));
  return {{"added_tokens", Json::array({token})}};
}

TEST(Tokenizer, FindsAddedTokens) {
  EXPECT_EQ(encode_small(added("{}"), "a<x>b"), (Ids{0, 6, 1}));
  EXPECT_EQ(encode_small(added(R"({"id": 99})"), "<x>"), (Ids{6})); // ids follow the vocabulary
  EXPECT_EQ(encode_small(added(R"({"content": "abc"})"), "aabc"), (Ids{0, 4}));
  EXPECT_EQ(encode_small(added(R"({"lstrip": true})"), "a  <x> b"), (Ids{0, 6, 5, 1}));
  EXPECT_EQ(encode_small(added(R"({"rstrip": true})"), "a <x>  b"), (Ids{0, 5, 6, 1}));
  Json words = added(R"({"content": "\u00E9", "single_word": true})");
  EXPECT_EQ(encode_small(words, "a\u00E9 \u00E9 \u00E9\u0301 \u00E9"), (Ids{0, 5, 6, 5, 5, 6}));
  Json longest = added("{}");
  for (const char *content : {"<x><", "x><x>"})
    longest["added_tokens"].push_back({{"content", content}, {"special", true}});
  EXPECT_EQ(encode_small(longest, "<x><x>"), (Ids{7}));
  EXPECT_EQ(encode_small(longest, "x><x>"), (Ids{8}));
}

TEST(Tokenizer, MatchesAddedTokensBeforeOrAfterNormalisation) {
  Json file = added(R"({"content": "A"})");
  file["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_EQ(encode_small(file, "aAbA"), (Ids{0, 6, 1, 6}));
  file["added_tokens"][0]["normalized"] = true; // is searched for as "a"
  EXPECT_EQ(encode_small(file, "aAbA"), (Ids{6, 6, 1, 6}));
}

TEST(Tokenizer, FramesTexts) {
  Json file = Json::parse(R"({"post_processor": {"type": "Sequence", "processors": [
    {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
    {"type": "TemplateProcessing",
     "single": [{"SpecialToken": {"id": "begin", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "end", "type_id": 0}}],
     "pair": [], "special_tokens": {"begin": {"id": "begin", "ids": [2, 5], "tokens": ["c", "?"]},
                                    "end": {"id": "end", "ids": [4], "tokens": ["abc"]}}}]}})");
  EXPECT_EQ(encode_small(file, "a", true), (Ids{2, 5, 0, 4}));
  EXPECT_EQ(encode_small(file, "", true), (Ids{2, 5, 4}));
  EXPECT_EQ(encode_small(file, "a", false), (Ids{0}));

  auto configured = create(kUnchanged, R"({"add_bos_token": true, "bos_token": {"content": "c"}, "eos_token": "ab"})");
  ASSERT_TRUE(configured.ok()) << configured.status().message();
  EXPECT_EQ(encode(**configured, "a", true), (Ids{2, 0}));
  EXPECT_EQ(create(kUnchanged, R"({"add_bos_token": true, "bos_token": null})").status().code(), Code::kCorrupt);
  EXPECT_EQ(create(kUnchanged, "{").status().code(), Code::kCorrupt);
}

TEST(Tokenizer, JoinsWithSpacesWithoutADecoder) {
  auto tokenizer = create({{"decoder", nullptr}});
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ(decode(**tokenizer, {0, 99, 3, 5}), "a ab \u0120");
}

TEST(Tokenizer, LongPiecesTakeNoQuadraticTime) {
  auto tokenizer = create(kUnchanged);
  ASSERT_TRUE(tokenizer.ok());
  std::string text;
  for (int i = 0; i < 1'000'000; ++i)
    text += "abcab"[i % 5];
  auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(encode(**tokenizer, text).size(), 400'000u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)); // quadratic would be an hour
}

struct BadFile {
  const char *section;
  const char *value;
  Code code;
  const char *message;
};

TEST(Tokenizer, RefusesOtherFilesInWords) {
  const BadFile files[] = {
      {"/model/type", R"("Unigram")", Code::kUnsupported, "expects a model of type BPE, got Unigram"},
      {"/model", "null", Code::kCorrupt, "expects an object for model"},
      {"/model/vocab", "null", Code::kCorrupt, "expects an object for model.vocab"},
      {"/model/merges", "null", Code::kCorrupt, "expects an array for model.merges"},
      {"/model/vocab", R"({"a": -1})", Code::kCorrupt, "expects a number for each token"},
      {"/model/vocab", R"({"a": 4294967296})", Code::kCorrupt, "expects token ids up to"},
      {"/model/merges", R"(["a b c"])", Code::kCorrupt, "expects merges of 2 tokens"},
      {"/model/merges", R"([["a", "b", "c"]])", Code::kCorrupt, "expects merges of 2 tokens, got 3"},
      {"/model/merges", "[1]", Code::kCorrupt, "expects model.merges to hold"},
      {"/model/merges", R"(["b c"])", Code::kCorrupt, "expects merges of tokens in model.vocab"},
      {"/model/byte_fallback", "true", Code::kUnsupported, "byte_fallback"},
      {"/model/dropout", "0.1", Code::kUnsupported, "expects no dropout"},
      {"/model/end_of_word_suffix", R"("</w>")", Code::kUnsupported, "end_of_word_suffix"},
      {"/model/continuing_subword_prefix", R"("##")", Code::kUnsupported, "continuing_subword_prefix"},
      {"/model/ignore_merges", "1", Code::kCorrupt, "expects true or false for ignore_merges"},
      {"/pre_tokenizer/type", R"("Metaspace")", Code::kUnsupported, "got Metaspace"},
      {"/pre_tokenizer", "{}", Code::kCorrupt, "expects a string for type, got nothing"},
      {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})", Code::kCorrupt,
       "expects a ) for every ("},
      {"/pre_tokenizer", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Other"})", Code::kCorrupt,
       "expects a behavior of"},
      {"/normalizer", R"({"type": "Precompiled"})", Code::kUnsupported, "got Precompiled"},
      {"/decoder", R"({"type": "Metaspace"})", Code::kUnsupported, "got Metaspace"},
      {"/post_processor", R"({"type": "BertProcessing"})", Code::kUnsupported, "got BertProcessing"},
      {"/added_tokens", R"([{"id": 1}])", Code::kCorrupt, "expects a string for content, got nothing"},
      {"/added_tokens", "1", Code::kCorrupt, "expects an array for added_tokens, got number"},
  };
  for (const BadFile &file : files) {
    Json whole = small_file(kUnchanged);
    whole[Json::json_pointer(file.section)] = Json::parse(file.value);
    auto tokenizer = Tokenizer::create(whole.dump(), "");
    ASSERT_FALSE(tokenizer.ok()) << file.section << " " << file.value;
    EXPECT_EQ(tokenizer.status().code(), file.code) << tokenizer.status().message();
    EXPECT_NE(tokenizer.status().message().find(file.message), std::string::npos) << tokenizer.status().message();
  }
}

TEST(Tokenizer, RefusesWhatIsNoJson) {
  for (const char *text : {"", "{", "[]", "1", "{} x", "{\"model\": \"\xFF\"}"})
    EXPECT_EQ(Tokenizer::create(text, "").status().code(), Code::kCorrupt) << text;
  EXPECT_EQ(Tokenizer::create(std::string(100'000, '['), "").status().code(), Code::kCorrupt);
  std::string whole = small_file(kUnchanged).dump();
  for (size_t length = 0; length < whole.size(); length += 7)
    EXPECT_EQ(Tokenizer::create(whole.substr(0, length), "").status().code(), Code::kCorrupt);
}

TEST(Tokenizer, EndsHostilePatterns) {
  Json file = Json::parse(R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+[bc]"},
                                                "behavior": "Isolated", "invert": false}})");
  auto tokenizer = create(file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  EXPECT_EQ((*tokenizer)->encode(std::string(10'000, 'a'), {}).status().code(), Code::kOutOfRange);
}

} // namespace
} // namespace freeport
