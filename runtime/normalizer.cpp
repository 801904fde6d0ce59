// The Unicode forms decompose with utf8proc, order marks by sorting (utf8proc's own ordering is quadratic in the length
// of a run of marks) and compose with utf8proc.
#include "runtime/normalizer.h"

#include "runtime/tokenizer_file.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <tuple>

namespace freeport {

namespace {

/// Sorts each run of combining marks by class, equal classes in their order.
void order_marks(std::vector<utf8proc_int32_t> &characters) {
  auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  auto is_combining = [&](utf8proc_int32_t c) { return combining_class(c) != 0; };
  struct Mark {
    int combining_class;
    size_t index;
    utf8proc_int32_t character;
    bool operator<(const Mark &other) const {
      return std::tie(combining_class, index) < std::tie(other.combining_class, other.index);
    }
  };
  std::vector<Mark> marks;
  for (auto run = characters.begin(); run != characters.end();) {
    run = std::find_if(run, characters.end(), is_combining);
    auto end = std::find_if_not(run, characters.end(), is_combining);
    marks.clear();
    for (auto mark = run; mark != end; ++mark)
      marks.push_back({combining_class(*mark), marks.size(), *mark});
    std::sort(marks.begin(), marks.end());
    for (const Mark &mark : marks)
      *run++ = mark.character;
  }
}

Status normalize_unicode(std::string &text, bool compose, bool compatibility) {
  if (is_ascii(text))
    return Status();
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  auto decompose = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0));
  for (size_t position = 0; position < text.size();) {
    utf8proc_int32_t decomposed[32]; // the longest decomposition has 18
    int last_class = 0;
    utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(next_character(text, position)),
                                                     decomposed, std::size(decomposed), decompose, &last_class);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(std::size(decomposed)))
      return Status(Code::kInternal, "normalizer: expects a character that decomposes");
    characters.insert(characters.end(), decomposed, decomposed + count);
  }
  order_marks(characters);
  if (compose) {
    utf8proc_ssize_t count =
        utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                                 static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    if (count < 0)
      return Status(Code::kInternal, std::string("normalizer: ") + utf8proc_errmsg(count));
    characters.resize(static_cast<size_t>(count));
  }
  text.clear();
  for (utf8proc_int32_t character : characters)
    append_utf8(static_cast<char32_t>(character), text);
  return Status();
}

void lowercase(std::string &text) {
  std::string result;
  result.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    char32_t character = next_character(text, position);
    if (character == 0x130) // the one character whose lower case is two
      result += "i\xCC\x87";
    else
      append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(character))), result);
  }
  text = std::move(result);
}

void strip_accents(std::string &text) {
  std::string result;
  result.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    size_t start = position;
    if (!is_mark(next_character(text, position)))
      result.append(text, start, position - start);
  }
  text = std::move(result);
}

void strip(std::string &text, bool left, bool right) {
  size_t begin = 0, end = text.size();
  for (size_t next = begin; left && begin < end && is_white_space(next_character(text, next)); begin = next) {
  }
  while (right && end > begin) {
    size_t start = previous_character_start(text, end), position = start;
    if (!is_white_space(next_character(text, position)))
      break;
    end = start;
  }
  text = text.substr(begin, end - begin);
}

Status replace(std::string &text, const RegularExpression &pattern, const std::string &content) {
  std::vector<MatchSpan> spans;
  FP_RETURN_IF_ERROR(pattern.find(text, spans));
  std::string result;
  for (const MatchSpan &span : spans) {
    if (span.is_match)
      result += content;
    else
      result.append(text, span.begin, span.end - span.begin);
    if (result.size() > kMaximumText)
      break;
  }
  text = std::move(result);
  return Status();
}

} // namespace

Result<RegularExpression> pattern_field(const nlohmann::json &object) {
  auto found = object.find("pattern");
  if (found == object.end() || !found->is_object())
    return Status(Code::kCorrupt, "tokenizer.json: expects {\"String\": ...} or {\"Regex\": ...} for pattern");
  if (found->contains("String")) {
    FP_ASSIGN_OR_RETURN(std::string text, string_field(*found, "String"));
    return RegularExpression::literal(text);
  }
  FP_ASSIGN_OR_RETURN(std::string text, string_field(*found, "Regex"));
  return RegularExpression::compile(text);
}

Result<Normalizer> Normalizer::create(const nlohmann::json &description) {
  Normalizer normalizer;
  if (!description.is_null())
    FP_RETURN_IF_ERROR(normalizer.add(description));
  return normalizer;
}

Status Normalizer::add(const nlohmann::json &description) {
  FP_ASSIGN_OR_RETURN(std::string type, string_field(description, "type"));
  if (type == "Sequence") {
    FP_ASSIGN_OR_RETURN(const nlohmann::json *members, array_field(description, "normalizers"));
    for (const nlohmann::json &member : *members)
      FP_RETURN_IF_ERROR(add(member));
    return Status();
  }
  Step step{};
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    step.kind = Kind::kUnicode;
    step.compose = type.back() == 'C';
    step.compatibility = type[2] == 'K';
  } else if (type == "Lowercase") {
    step.kind = Kind::kLowercase;
  } else if (type == "StripAccents") {
    step.kind = Kind::kStripAccents;
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    FP_ASSIGN_OR_RETURN(step.strip_left, bool_field(description, "strip_left", true));
    FP_ASSIGN_OR_RETURN(step.strip_right, bool_field(description, "strip_right", true));
  } else if (type == "Prepend") {
    step.kind = Kind::kPrepend;
    FP_ASSIGN_OR_RETURN(step.content, string_field(description, "prepend"));
  } else if (type == "Replace") {
    step.kind = Kind::kReplace;
    FP_ASSIGN_OR_RETURN(step.pattern, pattern_field(description));
    FP_ASSIGN_OR_RETURN(step.content, string_field(description, "content"));
  } else {
    return Status(Code::kUnsupported,
                  fmt::format("tokenizer.json: expects a normalizer of type NFC, NFD, NFKC, NFKD, Lowercase, "
                              "StripAccents, Strip, Prepend, Replace or Sequence, got {}",
                              type));
  }
  steps_.push_back(std::move(step));
  return Status();
}

Status Normalizer::apply(std::string &text) const {
  for (const Step &step : steps_) {
    switch (step.kind) {
    case Kind::kUnicode:
      FP_RETURN_IF_ERROR(normalize_unicode(text, step.compose, step.compatibility));
      break;
    case Kind::kLowercase:
      lowercase(text);
      break;
    case Kind::kStripAccents:
      strip_accents(text);
      break;
    case Kind::kStrip:
      strip(text, step.strip_left, step.strip_right);
      break;
    case Kind::kPrepend:
      if (!text.empty())
        text.insert(0, step.content);
      break;
    case Kind::kReplace:
      FP_RETURN_IF_ERROR(replace(text, *step.pattern, step.content));
      break;
    }
    if (text.size() > kMaximumText)
      return Status(Code::kOutOfRange, fmt::format("normalizer: expects at most {} bytes of text", kMaximumText));
  }
  return Status();
}

} // namespace freeport
