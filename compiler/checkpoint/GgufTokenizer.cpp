// GGUF names pre-tokenizers; what each name stands for is what the tokenizer.json of the models that use it says.
#include "compiler/checkpoint/GgufTokenizer.h"

#include "llvm/ADT/STLExtras.h"

namespace freeport::checkpoint {

using nlohmann::json;

/// A value of tokenizer.ggml.token_type.
enum TokenType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

namespace {

/// How text is cut before merging.
struct PreTokenizer {
  llvm::StringLiteral name;
  std::vector<const char *> patterns; ///< each cuts what the ones before it left
  bool composes = false;              ///< text is normalised to NFC first
  bool singleDigits = false;          ///< then every digit stands alone
  bool keepsWholePieces = false;      ///< a piece that is a token is not merged (ignore_merges)
  bool beginsByDefault = false;       ///< add_bos_token where that key is absent
};

} // namespace

static const std::vector<PreTokenizer> &preTokenizers() {
  static const std::vector<PreTokenizer> known = [] {
    constexpr const char *kLlama3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                                    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    constexpr const char *kQwen2 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                                   R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    constexpr const char *kDeepseek = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)"
                                      R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)"
                                      R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
    constexpr const char *kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
    std::vector<PreTokenizer> list;
    for (auto name : {llvm::StringLiteral("llama-bpe"), llvm::StringLiteral("llama3"), llvm::StringLiteral("llama-v3")})
      list.push_back({name, {kLlama3}, false, false, true, true});
    for (auto name : {llvm::StringLiteral("qwen2"), llvm::StringLiteral("deepseek-r1-qwen")})
      list.push_back({name, {kQwen2}, true});
    list.push_back({"deepseek-v3", {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+", kDeepseek}});
    list.push_back(
        {"deepseek-llm", {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", "[一-龥ࠀ-一가-\xED\x9F\xBF]+"}, false, true});
    list.push_back({"gpt-2", {kGpt2}});
    return list;
  }();
  return known;
}

static json byteLevel() {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
}

static json preTokenizerJson(const PreTokenizer &cut) {
  json parts = json::array();
  for (const char *pattern : cut.patterns)
    parts.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  if (cut.singleDigits)
    parts.push_back({{"type", "Digits"}, {"individual_digits", true}});
  parts.push_back(byteLevel());
  return {{"type", "Sequence"}, {"pretokenizers", std::move(parts)}};
}

void translateTokenizer(Config &metadata, GgufModel &model) {
  auto key = [](const char *name) { return std::string("tokenizer.ggml.") + name; };
  std::string kind = metadata.stringOr(key("model"), "no_vocab");
  if (kind != "gpt2") {
    model.notes.push_back(kind == "no_vocab"
                              ? "the file has no vocabulary: verbs that read or write text will refuse the package"
                              : "tokenizers of kind '" + kind +
                                    "' are not imported: verbs that read or write text will refuse the package");
    return;
  }
  std::string cutName = metadata.stringOr(key("pre"), "gpt-2");
  auto cut = llvm::find_if(preTokenizers(), [&](const PreTokenizer &entry) { return entry.name == cutName; });
  if (cut == preTokenizers().end()) {
    model.notes.push_back("pre-tokenizer '" + cutName +
                          "' is not known: verbs that read or write text will refuse the package");
    return;
  }
  std::vector<std::string> tokens = metadata.strings(key("tokens"));
  std::vector<int64_t> types = metadata.integers(key("token_type"));
  if (!types.empty() && types.size() != tokens.size())
    metadata.fail(key("token_type"), "one type for each of the " + llvm::Twine(tokens.size()) + " tokens");
  types.resize(tokens.size(), kNormal);
  json vocabulary = json::object(), added = json::array();
  for (auto [id, token] : llvm::enumerate(tokens)) {
    if (types[id] == kControl || types[id] == kUserDefined)
      added.push_back({{"id", id},
                       {"content", token},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", types[id] == kControl}});
    else if (types[id] != kUnused)
      vocabulary.emplace(token, id);
  }
  auto tokenAt = [&](const char *name) -> json {
    if (!metadata.has(key(name)))
      return nullptr;
    int64_t id = metadata.integer(key(name), 0);
    if (id < static_cast<int64_t>(tokens.size()))
      return tokens[id];
    metadata.fail(key(name), "the number of one of the " + llvm::Twine(tokens.size()) + " tokens");
    return nullptr;
  };
  json begin = tokenAt("bos_token_id"), end = tokenAt("eos_token_id");
  bool begins = metadata.booleanOr(key("add_bos_token"), cut->beginsByDefault);
  if (begins && begin.is_null())
    metadata.fail(key("bos_token_id"), "the token that add_bos_token adds");
  json frame = byteLevel();
  if (begins)
    frame = {{"type", "TemplateProcessing"},
             {"single", json::array({{{"SpecialToken", {{"id", begin}, {"type_id", 0}}}},
                                     {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}})},
             {"special_tokens",
              {{begin.is_string() ? begin.get<std::string>() : "",
                {{"id", begin},
                 {"ids", json::array({metadata.integer(key("bos_token_id"), 0)})},
                 {"tokens", json::array({begin})}}}}}};
  json file = {{"version", "1.0"},
               {"added_tokens", std::move(added)},
               {"normalizer", cut->composes ? json{{"type", "NFC"}} : json(nullptr)},
               {"pre_tokenizer", preTokenizerJson(*cut)},
               {"post_processor", std::move(frame)},
               {"decoder", byteLevel()},
               {"model",
                {{"type", "BPE"},
                 {"ignore_merges", cut->keepsWholePieces},
                 {"vocab", std::move(vocabulary)},
                 {"merges", metadata.strings(key("merges"))}}}};
  model.texts["tokenizer.json"] = file.dump();
  model.texts["tokenizer_config.json"] = json{{"bos_token", begin}, {"eos_token", end}}.dump();
  if (metadata.has("tokenizer.chat_template"))
    model.texts["chat_template.jinja"] = metadata.string("tokenizer.chat_template");
}

} // namespace freeport::checkpoint
