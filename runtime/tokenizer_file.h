// tokenizer.json as read from disk: its two large tables as flat arrays, the rest as a small JSON tree. A vocabulary of
// a quarter of a million entries would be slow as a tree of strings.
#pragma once

#include "runtime/status.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace freeport {

/// A tokenizer.json; `text` of the tables lies in `bytes`.
struct TokenizerFile {
  struct Text {
    uint32_t begin = 0;
    uint32_t length = 0;
  };
  struct Entry {
    Text token;
    uint32_t id = 0;
  };
  struct Merge {
    Text left;
    Text right;
  };

  std::string bytes;
  std::vector<Entry> vocabulary; ///< model.vocab, where that is an object
  std::vector<Merge> merges;     ///< model.merges, from either of its forms
  bool has_vocabulary = false;
  bool has_merges = false;
  nlohmann::json root; ///< everything else

  std::string_view text(Text t) const { return std::string_view(bytes).substr(t.begin, t.length); }

  static Result<TokenizerFile> parse(std::string_view json);
};

/// `object[key]` as a bool, or `fallback` where it is absent or null; kCorrupt for another type.
Result<bool> bool_field(const nlohmann::json &object, const char *key, bool fallback);
/// `object[key]` as a string; kCorrupt where it is absent or another type.
Result<std::string> string_field(const nlohmann::json &object, const char *key);
/// `object[key]` as an array; kCorrupt where it is absent or another type.
Result<const nlohmann::json *> array_field(const nlohmann::json &object, const char *key);

} // namespace freeport
