// Arbitrary bytes as tokenizer.json, as the pattern of a Split, and as text. The first byte chooses; nothing may crash,
// and a byte-level tokenizer must give back every text that it encoded.
#include "runtime/pre_tokenizer.h"
#include "runtime/tokenizer.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

using namespace freeport;
using Json = nlohmann::json;

constexpr std::string_view kSample = "It's  1234\n\n caf\u00E9 e\u0301 \uFB01 <x>\t\u4F60\u597D\U0001F600 a  ";

void expect(bool condition, const char *what) {
  if (!condition) {
    fprintf(stderr, "expects %s\n", what);
    abort();
  }
}

/// All 256 bytes, a few merges, an added token; splits like GPT-2 unless `pre_tokenizer` says otherwise.
std::string byte_level_file(const Json &pre_tokenizer) {
  Json vocabulary = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    append_utf8(byte_to_character(static_cast<unsigned char>(byte)), token);
    vocabulary[token] = byte;
  }
  Json merges = Json::array();
  for (const char *merge : {"a b", "b c", "ab c", "\u0120 a", "\u0120 \u0120", "\u00C3 \u00A9"}) {
    std::string merged(merge);
    merged.erase(merged.find(' '), 1);
    vocabulary[merged] = vocabulary.size();
    merges.push_back(merge);
  }
  return Json{{"added_tokens", Json::array({{{"content", "<x>"}, {"special", false}}})},
              {"pre_tokenizer", pre_tokenizer},
              {"decoder", {{"type", "ByteLevel"}}},
              {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}}
      .dump();
}

void check_decoding(const Tokenizer &tokenizer, const std::vector<int32_t> &ids) {
  Result<std::string> whole = tokenizer.decode(ids, false);
  expect(whole.ok(), "any ids to decode");
  Detokenizer detokenizer(tokenizer, false);
  std::string text;
  for (int32_t id : ids)
    text += detokenizer.push(id).value();
  text += detokenizer.finish();
  expect(text == *whole, "streamed text to equal decoded text");
}

void run_file(std::string_view bytes) {
  auto tokenizer = Tokenizer::create(bytes, "");
  if (!tokenizer.ok())
    return;
  auto ids = (*tokenizer)->encode(kSample, {true});
  if (ids.ok())
    check_decoding(**tokenizer, *ids);
}

void run_pattern(std::string_view bytes) {
  Json split = {{"type", "Split"},
                {"pattern", {{"Regex", replace_invalid_utf8(bytes)}}},
                {"behavior", "MergedWithNext"},
                {"invert", bytes.size() % 2 == 0}};
  Json sequence = {{"type", "Sequence"},
                   {"pretokenizers", {split, {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}};
  auto tokenizer = Tokenizer::create(byte_level_file(sequence), "");
  if (!tokenizer.ok())
    return;
  auto ids = (*tokenizer)->encode(kSample, {true});
  if (!ids.ok())
    return;
  check_decoding(**tokenizer, *ids);
  expect((*tokenizer)->decode(*ids, false).value() == kSample, "a split to lose nothing");
}

void run_text(std::string_view bytes) {
  static const auto tokenizer =
      Tokenizer::create(byte_level_file({{"type", "ByteLevel"}, {"add_prefix_space", false}}), "");
  auto ids = tokenizer.value()->encode(bytes, {true});
  expect(ids.ok(), "any text to encode");
  check_decoding(*tokenizer.value(), *ids);
  expect(tokenizer.value()->decode(*ids, false).value() == replace_invalid_utf8(bytes), "text to survive encoding");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0)
    return 0;
  std::string_view bytes(reinterpret_cast<const char *>(data) + 1, size - 1);
  switch (data[0] % 3) {
  case 0:
    run_file(bytes);
    break;
  case 1:
    run_pattern(bytes);
    break;
  default:
    run_text(bytes);
    break;
  }
  return 0;
}
