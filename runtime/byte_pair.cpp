// Both tables are flat and probed linearly: loading a quarter of a million merges is three look-ups each, and a look-up
// while merging touches one cache line.
#include "runtime/byte_pair.h"

#include "runtime/utf8.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>

namespace freeport {

namespace {

constexpr uint32_t kFree = 0xFFFFFFFF;
constexpr uint64_t kNoPair = ~uint64_t{0};

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

size_t pair_hash(uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15;
  return static_cast<size_t>(pair ^ pair >> 32);
}

size_t table_size(size_t entries) { return std::bit_ceil(entries * 2 + 2); }

} // namespace

Result<BytePairModel> BytePairModel::create(TokenizerFile &file) {
  auto model = file.root.find("model");
  if (model == file.root.end() || !model->is_object())
    return Status(Code::kCorrupt, "tokenizer.json: expects an object for model");
  BytePairModel result;
  FP_RETURN_IF_ERROR(result.read_options(*model));
  if (!file.has_vocabulary || !file.has_merges)
    return Status(Code::kCorrupt,
                  fmt::format("tokenizer.json: expects {}, got nothing of the kind",
                              file.has_vocabulary ? "an array for model.merges" : "an object for model.vocab"));
  result.bytes_ = std::move(file.bytes);
  FP_RETURN_IF_ERROR(result.read_vocabulary(file));
  FP_RETURN_IF_ERROR(result.read_merges(file));
  return result;
}

Status BytePairModel::read_options(const nlohmann::json &model) {
  if (model.contains("type")) {
    FP_ASSIGN_OR_RETURN(std::string type, string_field(model, "type"));
    if (type != "BPE")
      return Status(Code::kUnsupported, fmt::format("tokenizer.json: expects a model of type BPE, got {}", type));
  }
  FP_ASSIGN_OR_RETURN(bool byte_fallback, bool_field(model, "byte_fallback", false));
  if (byte_fallback)
    return Status(Code::kUnsupported, "tokenizer.json: expects byte-level BPE, got a model with byte_fallback");
  for (const char *key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    auto found = model.find(key);
    if (found != model.end() && !found->is_null() && *found != "")
      return Status(Code::kUnsupported,
                    fmt::format("tokenizer.json: expects byte-level BPE, got a model with {}", key));
  }
  auto dropout = model.find("dropout");
  if (dropout != model.end() && !dropout->is_null() && *dropout != 0.0)
    return Status(Code::kUnsupported, "tokenizer.json: expects no dropout, got a model that drops merges at random");
  if (auto found = model.find("unk_token"); found != model.end() && !found->is_null()) {
    FP_ASSIGN_OR_RETURN(unknown_token_, string_field(model, "unk_token"));
  }
  FP_ASSIGN_OR_RETURN(fuse_unknown_, bool_field(model, "fuse_unk", false));
  FP_ASSIGN_OR_RETURN(ignore_merges_, bool_field(model, "ignore_merges", false));
  return Status();
}

Status BytePairModel::read_vocabulary(const TokenizerFile &file) {
  uint32_t id_end = 0;
  for (const TokenizerFile::Entry &entry : file.vocabulary)
    id_end = std::max(id_end, entry.id + 1);
  by_id_.assign(id_end, {0, kFree});
  by_token_.assign(table_size(file.vocabulary.size()), {{}, kFree});
  size_t mask = by_token_.size() - 1;
  for (const TokenizerFile::Entry &entry : file.vocabulary) {
    std::string_view token = text(entry.token);
    size_t slot = XXH3_64bits(token.data(), token.size()) & mask;
    while (by_token_[slot].id != kFree && text(by_token_[slot].token) != token)
      slot = (slot + 1) & mask;
    size_ += by_token_[slot].id == kFree;
    by_token_[slot] = entry;
    by_id_[entry.id] = entry.token;
  }
  character_ids_.fill(-1);
  for (char32_t character = 0; character < character_ids_.size(); ++character) {
    std::string token;
    append_utf8(character, token);
    character_ids_[character] = token_to_id(token).value_or(-1);
  }
  return Status();
}

Status BytePairModel::read_merges(const TokenizerFile &file) {
  merges_.assign(table_size(file.merges.size()), {kNoPair, 0, 0});
  size_t mask = merges_.size() - 1;
  std::string merged;
  for (size_t rank = 0; rank < file.merges.size(); ++rank) {
    std::string_view left = text(file.merges[rank].left), right = text(file.merges[rank].right);
    merged.assign(left).append(right);
    std::optional<int32_t> left_id = token_to_id(left), right_id = token_to_id(right), merged_id = token_to_id(merged);
    if (!left_id || !right_id || !merged_id)
      return Status(Code::kCorrupt,
                    fmt::format("tokenizer.json: expects merges of tokens in model.vocab, got \"{}\" + \"{}\"",
                                left.substr(0, 100), right.substr(0, 100)));
    uint64_t pair = pair_key(*left_id, *right_id);
    size_t slot = pair_hash(pair) & mask;
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair)
      slot = (slot + 1) & mask;
    merges_[slot] = {pair, static_cast<uint32_t>(rank), *merged_id};
  }
  return Status();
}

std::optional<int32_t> BytePairModel::token_to_id(std::string_view token) const {
  size_t mask = by_token_.size() - 1;
  for (size_t slot = XXH3_64bits(token.data(), token.size()) & mask; by_token_[slot].id != kFree;
       slot = (slot + 1) & mask)
    if (text(by_token_[slot].token) == token)
      return static_cast<int32_t>(by_token_[slot].id);
  return std::nullopt;
}

std::optional<std::string_view> BytePairModel::id_to_token(int32_t id) const {
  if (id < 0 || id >= id_end() || by_id_[static_cast<size_t>(id)].length == kFree)
    return std::nullopt;
  return text(by_id_[static_cast<size_t>(id)]);
}

const BytePairModel::MergeSlot *BytePairModel::find_merge(int32_t left, int32_t right) const {
  uint64_t pair = pair_key(left, right);
  size_t mask = merges_.size() - 1;
  for (size_t slot = pair_hash(pair) & mask; merges_[slot].pair != kNoPair; slot = (slot + 1) & mask)
    if (merges_[slot].pair == pair)
      return &merges_[slot];
  return nullptr;
}

Status BytePairModel::encode(std::string_view piece, Scratch &scratch, std::vector<int32_t> &ids) const {
  if (ignore_merges_) {
    if (std::optional<int32_t> id = token_to_id(piece)) {
      ids.push_back(*id);
      return Status();
    }
  }
  FP_RETURN_IF_ERROR(read_symbols(piece, scratch.symbols));
  merge_symbols(scratch);
  for (const Symbol &symbol : scratch.symbols)
    if (symbol.length != 0)
      ids.push_back(symbol.id);
  return Status();
}

/// One symbol for each character. Characters outside the vocabulary become the unknown token, or nothing.
Status BytePairModel::read_symbols(std::string_view piece, std::vector<Symbol> &symbols) const {
  symbols.clear();
  bool after_unknown = false;
  for (size_t position = 0; position < piece.size();) {
    size_t start = position;
    char32_t character = next_character(piece, position);
    int32_t id = -1;
    if (character < character_ids_.size())
      id = character_ids_[character];
    else
      id = token_to_id(piece.substr(start, position - start)).value_or(-1);
    auto length = static_cast<uint32_t>(position - start);
    bool unknown = id < 0;
    if (unknown) {
      if (!unknown_token_)
        continue;
      if (after_unknown && fuse_unknown_) {
        symbols.back().length += length;
        continue;
      }
      std::optional<int32_t> unknown_id = token_to_id(*unknown_token_);
      if (!unknown_id)
        return Status(Code::kCorrupt,
                      fmt::format("tokenizer.json: expects the unk_token \"{}\" in model.vocab", *unknown_token_));
      id = *unknown_id;
    }
    after_unknown = unknown;
    auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1, length});
  }
  if (!symbols.empty())
    symbols.back().next = -1;
  return Status();
}

void BytePairModel::merge_symbols(Scratch &scratch) const {
  std::vector<Symbol> &symbols = scratch.symbols;
  std::vector<Candidate> &heap = scratch.heap;
  heap.clear();
  // Lowest rank first, then leftmost.
  auto later = [](const Candidate &a, const Candidate &b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  auto consider = [&](int32_t left, int32_t right) {
    const MergeSlot *merge = find_merge(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (merge)
      heap.push_back({merge->rank, left, merge->merged_id});
    return merge != nullptr;
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i)
    consider(static_cast<int32_t>(i), static_cast<int32_t>(i + 1));
  std::make_heap(heap.begin(), heap.end(), later);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    Candidate top = heap.back();
    heap.pop_back();
    Symbol &left = symbols[static_cast<size_t>(top.position)];
    if (left.length == 0 || left.next < 0)
      continue;
    Symbol &right = symbols[static_cast<size_t>(left.next)];
    const MergeSlot *merge = find_merge(left.id, right.id);
    if (!merge || merge->merged_id != top.merged_id)
      continue; // one of the two has been merged since
    left.id = top.merged_id;
    left.length += right.length;
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = top.position;
      if (consider(top.position, left.next))
        std::push_heap(heap.begin(), heap.end(), later);
    }
    if (left.previous >= 0 && consider(left.previous, top.position))
      std::push_heap(heap.begin(), heap.end(), later);
  }
}

} // namespace freeport
