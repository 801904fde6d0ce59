// Split and Digits share one routine: cover each piece with matches and gaps, then join, keep or drop these by the
// stage's behaviour. Patterns see one piece at a time, so that lookaround stops at its edges.
#include "runtime/pre_tokenizer.h"

#include "runtime/tokenizer_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace freeport {

namespace {

constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr size_t kAlphabetEnd = 0x180;

struct ByteAlphabet {
  std::array<char32_t, 256> characters;
  std::array<int, kAlphabetEnd> bytes;
  std::array<std::string, 256> utf8;

  ByteAlphabet() {
    bytes.fill(-1);
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
      characters[byte] = stands_for_itself(byte) ? byte : next++;
      bytes[characters[byte]] = static_cast<int>(byte);
      append_utf8(characters[byte], utf8[byte]);
    }
  }
};

const ByteAlphabet &byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

void find_digits(std::string_view text, std::vector<MatchSpan> &matches) {
  size_t covered = 0;
  for (size_t position = 0; position < text.size();) {
    size_t start = position;
    if (!is_numeric(next_character(text, position)))
      continue;
    if (covered < start)
      matches.push_back({covered, start, false});
    matches.push_back({start, position, true});
    covered = position;
  }
  if (covered < text.size())
    matches.push_back({covered, text.size(), false});
}

void map_bytes(Pieces &pieces) {
  const ByteAlphabet &alphabet = byte_alphabet();
  std::string mapped;
  mapped.reserve(pieces.text.size() + pieces.text.size() / 4);
  for (Span &span : pieces.spans) {
    size_t begin = mapped.size();
    for (size_t i = span.begin; i < span.end; ++i)
      mapped += alphabet.utf8[static_cast<unsigned char>(pieces.text[i])];
    span = {begin, mapped.size()};
  }
  pieces.text = std::move(mapped);
}

} // namespace

char32_t byte_to_character(unsigned char byte) { return byte_alphabet().characters[byte]; }

bool append_token_bytes(std::string_view token, std::string &bytes) {
  size_t before = bytes.size();
  for (size_t position = 0; position < token.size();) {
    char32_t character = next_character(token, position);
    int byte = character < kAlphabetEnd ? byte_alphabet().bytes[character] : -1;
    if (byte < 0) {
      bytes.resize(before);
      return false;
    }
    bytes += static_cast<char>(byte);
  }
  return true;
}

Result<PreTokenizer> PreTokenizer::create(const nlohmann::json &description) {
  PreTokenizer pre_tokenizer;
  if (!description.is_null())
    FP_RETURN_IF_ERROR(pre_tokenizer.add(description));
  return pre_tokenizer;
}

Status PreTokenizer::add(const nlohmann::json &description) {
  FP_ASSIGN_OR_RETURN(std::string type, string_field(description, "type"));
  if (type == "Sequence") {
    FP_ASSIGN_OR_RETURN(const nlohmann::json *members, array_field(description, "pretokenizers"));
    for (const nlohmann::json &member : *members)
      FP_RETURN_IF_ERROR(add(member));
    return Status();
  }
  if (type == "Split")
    return add_split(description);
  if (type == "ByteLevel")
    return add_byte_level(description);
  if (type == "Digits") {
    FP_ASSIGN_OR_RETURN(bool individual, bool_field(description, "individual_digits", false));
    stages_.push_back({Kind::kDigits, individual ? Behavior::kIsolated : Behavior::kContiguous, false, std::nullopt});
    return Status();
  }
  return Status(Code::kUnsupported, fmt::format("tokenizer.json: expects a pre_tokenizer of type Split, Digits, "
                                                "ByteLevel or Sequence, got {}",
                                                type));
}

Status PreTokenizer::add_split(const nlohmann::json &description) {
  Stage stage{};
  stage.kind = Kind::kSplit;
  FP_ASSIGN_OR_RETURN(stage.pattern, pattern_field(description));
  FP_ASSIGN_OR_RETURN(stage.invert, bool_field(description, "invert", false));
  FP_ASSIGN_OR_RETURN(std::string behavior, string_field(description, "behavior"));
  constexpr std::pair<std::string_view, Behavior> kBehaviors[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous},
  };
  for (const auto &[name, value] : kBehaviors) {
    if (name != behavior)
      continue;
    stage.behavior = value;
    stages_.push_back(std::move(stage));
    return Status();
  }
  return Status(Code::kCorrupt, fmt::format("tokenizer.json: expects a behavior of Removed, Isolated, "
                                            "MergedWithPrevious, MergedWithNext or Contiguous, got {}",
                                            behavior));
}

Status PreTokenizer::add_byte_level(const nlohmann::json &description) {
  FP_ASSIGN_OR_RETURN(bool add_prefix_space, bool_field(description, "add_prefix_space", true));
  FP_ASSIGN_OR_RETURN(bool use_regex, bool_field(description, "use_regex", true));
  if (add_prefix_space)
    stages_.push_back({Kind::kAddPrefixSpace, Behavior::kIsolated, false, std::nullopt});
  if (use_regex) {
    FP_ASSIGN_OR_RETURN(RegularExpression pattern, RegularExpression::compile(kByteLevelPattern));
    stages_.push_back({Kind::kSplit, Behavior::kIsolated, false, std::move(pattern)});
  }
  stages_.push_back({Kind::kBytes, Behavior::kIsolated, false, std::nullopt});
  return Status();
}

Result<Pieces> PreTokenizer::split(std::string text) const {
  Pieces pieces{std::move(text), {}};
  if (!pieces.text.empty())
    pieces.spans.push_back({0, pieces.text.size()});
  for (const Stage &stage : stages_) {
    if (stage.kind == Kind::kAddPrefixSpace)
      add_prefix_spaces(pieces);
    else if (stage.kind == Kind::kBytes)
      map_bytes(pieces);
    else
      FP_RETURN_IF_ERROR(split_pieces(stage, pieces));
    if (pieces.text.size() > 2 * kMaximumText)
      return Status(Code::kOutOfRange, "pre_tokenizer: expects a shorter text");
  }
  return pieces;
}

Status PreTokenizer::split_pieces(const Stage &stage, Pieces &pieces) {
  std::vector<Span> spans;
  std::vector<MatchSpan> matches;
  spans.reserve(pieces.spans.size());
  for (const Span &span : pieces.spans) {
    std::string_view piece = std::string_view(pieces.text).substr(span.begin, span.end - span.begin);
    matches.clear();
    if (stage.kind == Kind::kDigits)
      find_digits(piece, matches);
    else
      FP_RETURN_IF_ERROR(stage.pattern->find(piece, matches));
    if (stage.invert)
      for (MatchSpan &match : matches)
        match.is_match = !match.is_match;
    append_pieces(stage.behavior, matches, span.begin, spans);
  }
  pieces.spans = std::move(spans);
  return Status();
}

void PreTokenizer::append_pieces(Behavior behavior, const std::vector<MatchSpan> &matches, size_t offset,
                                 std::vector<Span> &spans) {
  size_t first = spans.size();
  auto append = [&](const MatchSpan &match) { spans.push_back({offset + match.begin, offset + match.end}); };
  bool previous = false;
  switch (behavior) {
  case Behavior::kRemoved:
  case Behavior::kIsolated:
    for (const MatchSpan &match : matches)
      if (behavior == Behavior::kIsolated || !match.is_match)
        append(match);
    break;
  case Behavior::kContiguous:
  case Behavior::kMergedWithPrevious:
    for (const MatchSpan &match : matches) {
      bool joins = behavior == Behavior::kContiguous ? match.is_match == previous : match.is_match && !previous;
      if (joins && spans.size() > first)
        spans.back().end = offset + match.end;
      else
        append(match);
      previous = match.is_match;
    }
    break;
  case Behavior::kMergedWithNext:
    for (size_t i = matches.size(); i-- > 0;) {
      if (matches[i].is_match && !previous && spans.size() > first)
        spans.back().begin = offset + matches[i].begin;
      else
        append(matches[i]);
      previous = matches[i].is_match;
    }
    std::reverse(spans.begin() + static_cast<ptrdiff_t>(first), spans.end());
    break;
  }
  // Empty matches take part in the joining above, but are no pieces.
  auto empty = [](const Span &span) { return span.begin == span.end; };
  spans.erase(std::remove_if(spans.begin() + static_cast<ptrdiff_t>(first), spans.end(), empty), spans.end());
}

void PreTokenizer::add_prefix_spaces(Pieces &pieces) {
  std::string text;
  text.reserve(pieces.text.size() + pieces.spans.size());
  for (Span &span : pieces.spans) {
    size_t begin = text.size();
    if (pieces.text[span.begin] != ' ')
      text += ' ';
    text.append(pieces.text, span.begin, span.end - span.begin);
    span = {begin, text.size()};
  }
  pieces.text = std::move(text);
}

} // namespace freeport
