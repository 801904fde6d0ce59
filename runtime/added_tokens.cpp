// The search tries every start, but only bytes that begin a token cost more than a look at a table. What happens around
// a match (words, stripping) follows the tokenizers library step by step, odd cases included.
#include "runtime/added_tokens.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace freeport {

void AddedTokens::Trie::insert(std::string_view pattern, size_t token) {
  if (pattern.empty())
    return; // a token that normalisation erases can be matched nowhere
  starts_[static_cast<unsigned char>(pattern[0])] = true;
  uint32_t node = 0;
  for (unsigned char byte : pattern) {
    auto [edge, inserted] = next_.try_emplace(uint64_t{node} * 256 + byte, static_cast<uint32_t>(token_.size()));
    if (inserted)
      token_.push_back(SIZE_MAX);
    node = edge->second;
  }
  token_[node] = token;
}

size_t AddedTokens::Trie::longest(std::string_view text, size_t &length) const {
  size_t found = SIZE_MAX;
  if (!starts_[static_cast<unsigned char>(text[0])])
    return found;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    auto edge = next_.find(uint64_t{node} * 256 + static_cast<unsigned char>(text[i]));
    if (edge == next_.end())
      break;
    node = edge->second;
    if (token_[node] != SIZE_MAX) {
      found = token_[node];
      length = i + 1;
    }
  }
  return found;
}

Result<AddedTokens> AddedTokens::create(const nlohmann::json &file, const BytePairModel &model,
                                        const Normalizer &normalizer) {
  AddedTokens result;
  if (!file.contains("added_tokens"))
    return result;
  FP_ASSIGN_OR_RETURN(const nlohmann::json *descriptions, array_field(file, "added_tokens"));
  auto next_id = static_cast<int32_t>(model.size());
  for (const nlohmann::json &description : *descriptions)
    FP_RETURN_IF_ERROR(result.add(description, model, normalizer, next_id));
  for (size_t i = 0; i < result.tokens_.size(); ++i)
    (result.tokens_[i].normalized ? result.normalized_ : result.raw_).insert(result.tokens_[i].matched, i);
  return result;
}

Status AddedTokens::add(const nlohmann::json &description, const BytePairModel &model, const Normalizer &normalizer,
                        int32_t &next_id) {
  AddedToken token;
  FP_ASSIGN_OR_RETURN(token.content, string_field(description, "content"));
  FP_ASSIGN_OR_RETURN(token.special, bool_field(description, "special", false));
  FP_ASSIGN_OR_RETURN(token.normalized, bool_field(description, "normalized", !token.special));
  FP_ASSIGN_OR_RETURN(token.single_word, bool_field(description, "single_word", false));
  FP_ASSIGN_OR_RETURN(token.strip_left, bool_field(description, "lstrip", false));
  FP_ASSIGN_OR_RETURN(token.strip_right, bool_field(description, "rstrip", false));
  if (token.content.empty())
    return Status();
  token.matched = token.content;
  if (token.normalized)
    FP_RETURN_IF_ERROR(normalizer.apply(token.matched));

  auto known = by_content_.find(token.content);
  if (known != by_content_.end()) {
    token.id = tokens_[known->second].id;
    token.special |= tokens_[known->second].special;
    tokens_[known->second] = std::move(token);
    return Status();
  }
  token.id = model.token_to_id(token.content).value_or(next_id);
  next_id += token.id == next_id;
  by_content_.emplace(token.content, tokens_.size());
  tokens_.push_back(std::move(token));
  return Status();
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text, bool normalized) const {
  const Trie &trie = normalized ? normalized_ : raw_;
  std::vector<Part> parts;
  size_t covered = 0;
  for (size_t position = 0; !trie.empty() && position < text.size();) {
    size_t length = 0;
    size_t found = trie.longest(text.substr(position), length);
    if (found == SIZE_MAX) {
      ++position;
      continue;
    }
    const AddedToken &token = tokens_[found];
    size_t begin = position, end = position + length;
    position = end;
    if (token.single_word) {
      size_t before = begin == 0 ? 0 : previous_character_start(text, begin), after = end;
      bool inside_word = (begin > 0 && is_word_character(next_character(text, before))) ||
                         (end < text.size() && is_word_character(next_character(text, after)));
      if (inside_word)
        continue;
    }
    // A match may begin in white space that the match before it took.
    if (token.strip_left)
      begin = std::max(begin, covered);
    while (token.strip_left && begin > covered) {
      size_t start = previous_character_start(text, begin), next = start;
      if (!is_white_space(next_character(text, next)))
        break;
      begin = start;
    }
    for (size_t next = end; token.strip_right && end < text.size(); end = next)
      if (!is_white_space(next_character(text, next)))
        break;
    if (covered < begin)
      parts.push_back({-1, covered, begin});
    if (begin < end)
      parts.push_back({token.id, begin, end});
    covered = end;
  }
  if (covered < text.size())
    parts.push_back({-1, covered, text.size()});
  return parts;
}

} // namespace freeport
