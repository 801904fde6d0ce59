// Tokens that are found in the text itself, before byte pairs: `added_tokens` of tokenizer.json, special ones among
// them. They are matched leftmost-longest, some in the raw text, the others in the normalised text.
#pragma once

#include "runtime/byte_pair.h"
#include "runtime/normalizer.h"

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace freeport {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  std::string matched;      ///< what is searched for and decoded: `content`, normalised if `normalized`
  bool single_word = false; ///< never part of a word
  bool strip_left = false;  ///< takes the white space to its left
  bool strip_right = false;
  bool normalized = false; ///< is searched for in the normalised text
  bool special = false;    ///< is left out of decoded text on request
};

/// Concurrent const calls are safe.
class AddedTokens {
public:
  /// A stretch of text: an added token, or (id -1) text between.
  struct Part {
    int32_t id;
    size_t begin;
    size_t end;
  };

  /// Ids are those of the model's vocabulary or follow it in the order of the file, whatever ids the file gives: that
  /// is how the tokenizers library reads it.
  static Result<AddedTokens> create(const nlohmann::json &file, const BytePairModel &model,
                                    const Normalizer &normalizer);

  const std::vector<AddedToken> &tokens() const { return tokens_; }

  /// Cuts `text` (valid UTF-8) at the tokens that are searched for in normalised or in raw text; no part is empty.
  std::vector<Part> split(std::string_view text, bool normalized) const;

private:
  /// The patterns of one kind, by their bytes.
  class Trie {
  public:
    void insert(std::string_view pattern, size_t token);
    /// The longest pattern at the start of `text`, or SIZE_MAX; `length` becomes its length.
    size_t longest(std::string_view text, size_t &length) const;
    bool empty() const { return next_.empty(); }

  private:
    std::unordered_map<uint64_t, uint32_t> next_; ///< node * 256 + byte -> node
    std::vector<size_t> token_{SIZE_MAX};         ///< by node
    std::array<bool, 256> starts_{};
  };

  Status add(const nlohmann::json &description, const BytePairModel &model, const Normalizer &normalizer,
             int32_t &next_id);

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t> by_content_;
  Trie raw_;
  Trie normalized_;
};

} // namespace freeport
