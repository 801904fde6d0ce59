// One pass over the pattern that copies what both engines read alike. It remembers where the last element begins, so
// that a repeated repetition can be wrapped in a group, which PCRE2 would read in another way.
#include "runtime/pattern_syntax.h"

#include "runtime/pattern_properties.h"
#include "runtime/pattern_reader.h"
#include "runtime/utf8.h"

#include <fmt/format.h>

#include <optional>
#include <vector>

namespace freeport {

namespace {

constexpr size_t kMaximumLength = 16 * 1024;
constexpr int kMaximumWraps = 100;
constexpr size_t kNone = SIZE_MAX;

class Translator : PatternReader {
public:
  explicit Translator(std::string_view pattern) : PatternReader(pattern) {}

  Result<std::string> run();

private:
  struct Group {
    size_t start;     ///< in out_
    int open_options; ///< `(?i)` groups that end with this one
    bool caseless;    ///< the option behind its end
  };

  void emit_atom(std::string_view text) {
    atom_ = out_.size();
    quantified_ = false;
    out_ += text;
  }
  void emit_bare(std::string_view text) {
    out_ += text;
    atom_ = kNone;
    quantified_ = false;
  }

  Status step();
  Status open_group();
  Status open_options();
  Status close_group();
  Status quantifier();
  bool interval(std::string &text);
  Status escape();

  std::string out_;
  std::vector<Group> groups_{{0, 0, false}};
  size_t atom_ = kNone; ///< where the element that a quantifier would repeat starts in out_
  bool quantified_ = false;
  int wraps_ = 0;
};

Result<std::string> Translator::run() {
  if (pattern_.size() > kMaximumLength)
    return unsupported(fmt::format("at most {} bytes", kMaximumLength));
  while (!at_end())
    FP_RETURN_IF_ERROR(step());
  if (groups_.size() != 1)
    return corrupt("a ) for every (");
  out_.append(static_cast<size_t>(groups_.back().open_options), ')');
  return std::move(out_);
}

Status Translator::step() {
  switch (pattern_[position_]) {
  case '\\':
    ++position_;
    return escape();
  case '[': {
    ++position_;
    FP_ASSIGN_OR_RETURN(PatternSet parsed, set());
    emit_atom(parsed.expression());
    return Status();
  }
  case '(':
    ++position_;
    return open_group();
  case ')':
    ++position_;
    return close_group();
  case '|':
    ++position_;
    emit_bare("|");
    return Status();
  case '*':
  case '+':
  case '?':
    return quantifier();
  case '{': {
    std::string text;
    size_t start = position_;
    if (interval(text)) {
      position_ = start;
      return quantifier();
    }
    ++position_;
    emit_atom("\\{");
    return Status();
  }
  default: {
    size_t start = position_;
    next_character(pattern_, position_);
    emit_atom(pattern_.substr(start, position_ - start));
    return Status();
  }
  }
}

Status Translator::open_group() {
  if (!take("?")) {
    groups_.push_back({out_.size(), 0, caseless_});
    emit_bare("(");
    return Status();
  }
  if (take("#")) {
    size_t end = pattern_.find(')', position_);
    if (end == std::string_view::npos)
      return corrupt("a ) behind a comment");
    position_ = end + 1;
    return Status();
  }
  for (std::string_view kind : {":", "=", "!", ">", "<=", "<!"}) {
    if (!take(kind))
      continue;
    groups_.push_back({out_.size(), 0, caseless_});
    emit_bare(fmt::format("(?{}", kind));
    return Status();
  }
  if (take("<")) {
    size_t end = pattern_.find('>', position_);
    if (end == std::string_view::npos)
      return corrupt("a > behind a group's name");
    groups_.push_back({out_.size(), 0, caseless_});
    emit_bare(fmt::format("(?<{}>", pattern_.substr(position_, end - position_)));
    position_ = end + 1;
    return Status();
  }
  return open_options();
}

Status Translator::open_options() {
  std::string options;
  bool on = true, caseless = caseless_;
  for (; !at_end() && pattern_[position_] != ')' && pattern_[position_] != ':'; ++position_) {
    switch (pattern_[position_]) {
    case 'i':
      options += 'i';
      caseless = on;
      break;
    case '-':
      options += '-';
      on = false;
      break;
    case 'm': // "the dot matches a newline" is called m there and s here
      options += 's';
      break;
    default:
      return unsupported("the options i and m, and groups (?: (?= (?! (?> (?<= (?<! (?<name>");
    }
  }
  if (at_end())
    return corrupt("a ) for every (");
  if (pattern_[position_++] == ':') {
    groups_.push_back({out_.size(), 0, caseless_});
    emit_bare(fmt::format("(?{}:", options));
  } else {
    // In Oniguruma the rest of the enclosing group, its alternatives included, is one group under these options.
    groups_.back().open_options++;
    emit_bare(fmt::format("(?{}:", options));
  }
  caseless_ = caseless;
  return Status();
}

Status Translator::close_group() {
  if (groups_.size() == 1)
    return corrupt("a ( for every )");
  Group group = groups_.back();
  groups_.pop_back();
  caseless_ = group.caseless;
  out_.append(static_cast<size_t>(group.open_options) + 1, ')');
  atom_ = group.start;
  quantified_ = false;
  return Status();
}

/// Reads {n}, {n,}, {,m} or {n,m} behind `position_`; false, if this brace is an ordinary character.
bool Translator::interval(std::string &text) {
  size_t at = position_ + 1;
  auto number = [&] {
    size_t start = at;
    while (at < pattern_.size() && pattern_[at] >= '0' && pattern_[at] <= '9')
      ++at;
    return std::string(pattern_.substr(start, at - start));
  };
  std::string low = number(), high;
  bool comma = at < pattern_.size() && pattern_[at] == ',';
  if (comma) {
    ++at;
    high = number();
  }
  if (at >= pattern_.size() || pattern_[at] != '}' || (low.empty() && high.empty()))
    return false;
  text = fmt::format("{{{}{}{}}}", low.empty() ? "0" : low, comma ? "," : "", high);
  position_ = at + 1;
  return true;
}

Status Translator::quantifier() {
  if (atom_ == kNone)
    return corrupt("something to repeat before * + ? or {");
  std::string text;
  if (interval(text)) {
    // Only an interval with a comma has a lazy form; {n}? and {n,m}+ repeat the repetition.
    if (text.find(',') != std::string::npos && take("?"))
      text += '?';
  } else {
    text = pattern_[position_++];
    if (take("?"))
      text += '?';
    else if (take("+"))
      text += '+';
  }
  if (quantified_) {
    if (++wraps_ > kMaximumWraps)
      return unsupported(fmt::format("at most {} repetitions of repetitions", kMaximumWraps));
    out_.insert(atom_, "(?:");
    out_ += ')';
  }
  out_ += text;
  quantified_ = true;
  return Status();
}

Status Translator::escape() {
  if (at_end())
    return corrupt("a character behind \\");
  FP_ASSIGN_OR_RETURN(std::optional<PatternItem> item, character_escape(/*in_set=*/false));
  if (item) {
    emit_atom(item->expression());
    return Status();
  }
  char c = pattern_[position_++];
  switch (c) {
  case 'b':
  case 'B': {
    std::string inside = fmt::format("[{}{}]", kWord, kLatin1Numbers);
    std::string text = c == 'b' ? "(?:(?<={0})(?!{0})|(?<!{0})(?={0}))" : "(?:(?<={0})(?={0})|(?<!{0})(?!{0}))";
    emit_bare(fmt::format(fmt::runtime(text), inside));
    return Status();
  }
  case 'A':
  case 'z':
  case 'Z':
  case 'G':
  case 'K':
    emit_bare(std::string{'\\', c});
    return Status();
  case 'R':
  case 'X':
    emit_atom(std::string{'\\', c});
    return Status();
  case 'N':
    emit_atom("[^\\n]");
    return Status();
  case 'O':
    emit_atom("\\p{Any}");
    return Status();
  case 'k':
  case 'g': {
    size_t end = pattern_.find('>', position_);
    if (!next_is("<") || end == std::string_view::npos)
      return corrupt("\\k<name> or \\g<name>");
    emit_atom(fmt::format("\\{}{}", c, pattern_.substr(position_, end + 1 - position_)));
    position_ = end + 1;
    return Status();
  }
  default:
    break;
  }
  if (c < '1' || c > '9')
    return unsupported("an escape that tokenizers use");
  std::string number(1, c);
  while (next_is_digit())
    number += pattern_[position_++];
  emit_atom(fmt::format("\\g{{{}}}", number));
  return Status();
}

} // namespace

Result<std::string> translate_pattern(std::string_view pattern) { return Translator(pattern).run(); }

} // namespace freeport
