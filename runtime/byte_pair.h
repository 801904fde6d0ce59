// The model of tokenizer.json: a vocabulary and ranked merges of neighbouring tokens. Merging keeps a heap of candidate
// pairs, so that a piece of n characters takes n log n steps, however long.
#pragma once

#include "runtime/status.h"
#include "runtime/tokenizer_file.h"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace freeport {

/// Byte-pair encoding. Concurrent const calls are safe if each has its own Scratch.
class BytePairModel {
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
    uint32_t length; ///< 0: merged into a symbol to its left
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;
    int32_t merged_id;
  };

public:
  /// Memory that `encode` reuses.
  class Scratch {
    friend class BytePairModel;
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  /// From the tables of `file` and its `model` value.
  static Result<BytePairModel> create(TokenizerFile &file);

  /// Appends the ids of one piece of valid UTF-8.
  Status encode(std::string_view piece, Scratch &scratch, std::vector<int32_t> &ids) const;

  /// Number of distinct tokens.
  size_t size() const { return size_; }
  /// One more than the highest id.
  int32_t id_end() const { return static_cast<int32_t>(by_id_.size()); }
  std::optional<int32_t> token_to_id(std::string_view token) const;
  /// The token of `id` (no value for ids without one).
  std::optional<std::string_view> id_to_token(int32_t id) const;

private:
  struct MergeSlot {
    uint64_t pair;
    uint32_t rank;
    int32_t merged_id;
  };

  Status read_vocabulary(const TokenizerFile &file);
  Status read_merges(const TokenizerFile &file);
  Status read_options(const nlohmann::json &model);
  const MergeSlot *find_merge(int32_t left, int32_t right) const;
  Status read_symbols(std::string_view piece, std::vector<Symbol> &symbols) const;
  void merge_symbols(Scratch &scratch) const;
  std::string_view text(TokenizerFile::Text t) const { return std::string_view(bytes_).substr(t.begin, t.length); }

  std::string bytes_;
  size_t size_ = 0;
  std::vector<TokenizerFile::Text> by_id_;     ///< length 0xFFFFFFFF: no token
  std::vector<TokenizerFile::Entry> by_token_; ///< open addressing; id 0xFFFFFFFF: free
  std::vector<MergeSlot> merges_;              ///< open addressing; pair all ones: free
  std::array<int32_t, 0x180> character_ids_{}; ///< ids of the one-character tokens that ByteLevel makes, or -1
  bool ignore_merges_ = false;
  bool fuse_unknown_ = false;
  std::optional<std::string> unknown_token_;
};

} // namespace freeport
