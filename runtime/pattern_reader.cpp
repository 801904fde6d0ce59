// Characters are written as \x{...}, so that nothing in a set can be mistaken for its syntax.
#include "runtime/pattern_reader.h"

#include "runtime/pattern_properties.h"
#include "runtime/utf8.h"

#include <fmt/format.h>

#include <vector>

namespace freeport {

namespace {

constexpr int kMaximumSetDepth = 16;
constexpr size_t kMaximumSetLength = 64 * 1024;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string word_set(bool in_set) { return in_set ? std::string(kWord) : fmt::format("{}{}", kWord, kLatin1Numbers); }

std::string code_point(char32_t character) {
  if (character < 0x80 && (is_digit(static_cast<char>(character)) || is_letter(static_cast<char>(character))))
    return std::string(1, static_cast<char>(character));
  return fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(character));
}

} // namespace

std::string PatternItem::expression() const {
  return character ? code_point(*character) : (negated ? "[^" : "[") + set + "]";
}

bool PatternReader::take(std::string_view text) {
  bool found = next_is(text);
  if (found)
    position_ += text.size();
  return found;
}

Status PatternReader::failure(Code code, std::string_view what) const {
  return Status(code, fmt::format("regular expression: expects {}, got \"{}\" (at byte {})", what,
                                  replace_invalid_utf8(pattern_.substr(0, 200)), position_));
}

Result<char32_t> PatternReader::hexadecimal(size_t minimum, size_t maximum) {
  uint32_t value = 0;
  size_t digits = 0;
  for (; digits < maximum && !at_end(); ++digits, ++position_) {
    char c = pattern_[position_];
    if (is_digit(c))
      value = value * 16 + static_cast<uint32_t>(c - '0');
    else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
      value = value * 16 + static_cast<uint32_t>((c | 0x20) - 'a' + 10);
    else
      break;
  }
  if (digits < minimum || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
    return corrupt("the hexadecimal number of a character");
  return static_cast<char32_t>(value);
}

Result<std::optional<PatternItem>> PatternReader::character_escape(bool in_set) {
  auto character = [&](char32_t c) { return std::optional<PatternItem>(PatternItem{c, {}, false}); };
  auto named = [&](std::string_view content, bool negated) {
    return std::optional<PatternItem>(PatternItem{std::nullopt, std::string(content), negated});
  };
  char c = pattern_[position_];
  if (!is_letter(c) && !is_digit(c))
    return character(next_character(pattern_, position_));
  ++position_;
  switch (c) {
  case 't':
    return character('\t');
  case 'n':
    return character('\n');
  case 'v':
    return character('\v');
  case 'f':
    return character('\f');
  case 'r':
    return character('\r');
  case 'a':
    return character('\a');
  case 'e':
    return character(0x1B);
  case 'd':
  case 'D':
    return named(R"(\p{Nd})", c == 'D');
  case 's':
    return named(kSpace, false);
  case 'S':
    return named(kNotSpace, false);
  case 'w':
  case 'W':
    return named(word_set(in_set), c == 'W');
  case 'h':
  case 'H':
    return named(kHexadecimal, c == 'H');
  case 'p':
  case 'P': {
    FP_ASSIGN_OR_RETURN(PatternItem item, property(c == 'P', in_set));
    return std::optional<PatternItem>(std::move(item));
  }
  case 'u': {
    FP_ASSIGN_OR_RETURN(char32_t value, hexadecimal(4, 4));
    return character(value);
  }
  case 'x': {
    if (take("{")) {
      FP_ASSIGN_OR_RETURN(char32_t value, hexadecimal(1, 8));
      if (!take("}"))
        return unsupported("one character in \\x{...}");
      return character(value);
    }
    FP_ASSIGN_OR_RETURN(char32_t value, hexadecimal(1, 2));
    if (value >= 0x80) // there, one byte of a UTF-8 sequence
      return unsupported("\\x{...} for characters above 7f");
    return character(value);
  }
  case 'b':
    if (in_set)
      return character('\b');
    break;
  case '0': {
    uint32_t value = 0;
    for (int digits = 0; digits < 2 && !at_end() && pattern_[position_] >= '0' && pattern_[position_] <= '7'; ++digits)
      value = value * 8 + static_cast<uint32_t>(pattern_[position_++] - '0');
    return character(value);
  }
  default:
    break;
  }
  if (in_set)
    return unsupported("an escape that tokenizers use in a set");
  --position_;
  return std::optional<PatternItem>();
}

Result<PatternItem> PatternReader::property(bool negated, bool in_set) {
  size_t end = pattern_.find('}', position_);
  if (!take("{") || end == std::string_view::npos)
    return corrupt("a name in braces behind \\p");
  if (take("^"))
    negated = !negated;
  std::string name;
  for (; position_ < end; ++position_) {
    char c = pattern_[position_];
    if (c == ' ' || c == '-' || c == '_')
      continue;
    if (!is_letter(c) && !is_digit(c))
      return unsupported("the name of a category, property or script in \\p{...}");
    name += is_letter(c) ? static_cast<char>(c | 0x20) : c;
  }
  position_ = end + 1;
  if (in_set)
    FP_RETURN_IF_ERROR(check_case(name));
  return PatternItem{std::nullopt, name == "word" ? word_set(in_set) : property_set(name), negated};
}

Status PatternReader::check_case(std::string_view name) const {
  // There, such a set takes both cases; PCRE2 would keep to one.
  return caseless_ && is_case_property(name) ? unsupported("no upper- or lower-case property in a set under (?i)")
                                             : Status();
}

Result<PatternItem> PatternReader::named_set() {
  bool negated = take("^");
  size_t end = pattern_.find(":]", position_);
  if (end == std::string_view::npos)
    return corrupt("a :] behind [:");
  std::string name(pattern_.substr(position_, end - position_));
  FP_RETURN_IF_ERROR(check_case(name));
  auto content = posix_set(name);
  if (!content)
    return unsupported("[:alnum:] [:alpha:] [:ascii:] [:blank:] [:cntrl:] [:digit:] [:lower:] [:punct:] [:space:] "
                       "[:upper:] [:word:] or [:xdigit:]");
  position_ = end + 2;
  return PatternItem{std::nullopt, std::string(*content), negated};
}

Result<PatternItem> PatternReader::set_item() {
  if (take("[:"))
    return named_set();
  if (take("\\")) {
    if (at_end())
      return corrupt("a character behind \\");
    FP_ASSIGN_OR_RETURN(std::optional<PatternItem> item, character_escape(/*in_set=*/true));
    return *std::move(item);
  }
  return PatternItem{next_character(pattern_, position_), {}, false};
}

Result<PatternSet> PatternReader::set(int depth) {
  if (depth > kMaximumSetDepth)
    return unsupported(fmt::format("sets at most {} deep", kMaximumSetDepth));
  struct Operand {
    std::string content;                   ///< what fits into one pair of brackets
    std::vector<std::string> alternatives; ///< what does not

    std::string expression() const {
      std::string text = content.empty() ? "" : "[" + content + "]";
      for (const std::string &alternative : alternatives)
        text += (text.empty() ? "" : "|") + alternative;
      return "(?:" + text + ")";
    }
    bool empty() const { return content.empty() && alternatives.empty(); }
  };

  bool negated = take("^");
  std::vector<Operand> operands(1);
  for (bool first = true;; first = false) {
    if (at_end())
      return corrupt("a ] for every [");
    Operand &operand = operands.back();
    if (!first && take("]"))
      break;
    if (take("&&")) {
      if (operand.empty())
        return corrupt("a set on each side of &&");
      operands.emplace_back();
      continue;
    }
    if (next_is("[") && !next_is("[:")) {
      ++position_;
      FP_ASSIGN_OR_RETURN(PatternSet nested, set(depth + 1));
      if (nested.plain && !nested.negated)
        operand.content += nested.content;
      else
        operand.alternatives.push_back(nested.expression());
      continue;
    }
    FP_ASSIGN_OR_RETURN(PatternItem item, set_item());
    if (!item.character) {
      if (item.negated)
        operand.alternatives.push_back(item.expression());
      else
        operand.content += item.set;
      continue;
    }
    operand.content += code_point(*item.character);
    bool range = next_is("-") && !next_is("-]") && !next_is("-&&") && position_ + 1 < pattern_.size();
    if (!range)
      continue;
    ++position_;
    if (next_is("["))
      return unsupported("a character at the end of a range");
    FP_ASSIGN_OR_RETURN(PatternItem last, set_item());
    if (!last.character)
      return unsupported("a character at the end of a range");
    if (*last.character < *item.character)
      return corrupt("a range that ascends");
    operand.content += "-" + code_point(*last.character);
    // A hyphen right behind a range is itself.
    if (next_is("-") && !next_is("-]")) {
      ++position_;
      operand.content += code_point('-');
    }
  }
  if (operands.back().empty())
    return corrupt("a set on each side of &&");

  PatternSet result;
  result.negated = negated;
  if (operands.size() == 1 && operands[0].alternatives.empty()) {
    result.content = std::move(operands[0].content);
    return result;
  }
  result.plain = false;
  std::string body;
  for (size_t i = 0; i + 1 < operands.size(); ++i)
    body += "(?=" + operands[i].expression() + ")";
  body = "(?:" + body + operands.back().expression() + ")";
  result.content = negated ? "(?:(?!" + body + ")\\p{Any})" : body;
  result.negated = false;
  if (result.content.size() > kMaximumSetLength)
    return unsupported("a smaller set");
  return result;
}

} // namespace freeport
