// Decoding follows the WHATWG rule for broken sequences (one U+FFFD for each maximal prefix of a character), which is
// what Python, Rust and browsers do. Properties come from utf8proc, but for White_Space, which is short and stable.
#include "runtime/utf8.h"

#include <utf8proc.h>

namespace freeport {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// Length of the character at `position`, or 0 if it is broken; `valid` counts the bytes that a character could have.
size_t character_length(std::string_view bytes, size_t position, size_t &valid) {
  auto byte = [&](size_t offset) { return static_cast<unsigned char>(bytes[position + offset]); };
  unsigned char lead = byte(0);
  valid = 1;
  if (lead < 0x80)
    return 1;
  size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4)
    return 0;
  // The second byte's range excludes overlong forms, surrogates and everything above U+10FFFF.
  unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (; valid < length; ++valid) {
    if (position + valid >= bytes.size() || byte(valid) < low || byte(valid) > high)
      return 0;
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

} // namespace

size_t append_valid_utf8(std::string_view bytes, bool keep_incomplete, std::string &text) {
  size_t position = 0;
  while (position < bytes.size()) {
    size_t valid = 0;
    size_t length = character_length(bytes, position, valid);
    if (length != 0) {
      text.append(bytes.substr(position, length));
      position += length;
      continue;
    }
    auto lead = static_cast<unsigned char>(bytes[position]);
    bool could_continue = position + valid == bytes.size() && lead >= 0xC2 && lead <= 0xF4;
    if (keep_incomplete && could_continue)
      break;
    text.append(kReplacement);
    position += valid;
  }
  return position;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  append_valid_utf8(bytes, /*keep_incomplete=*/false, text);
  return text;
}

char32_t next_character(std::string_view text, size_t &position) {
  auto byte = [&](size_t offset) { return static_cast<char32_t>(static_cast<unsigned char>(text[position + offset])); };
  char32_t lead = byte(0);
  char32_t character = lead;
  size_t length = 1;
  if (lead >= 0xF0) {
    character = (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    length = 4;
  } else if (lead >= 0xE0) {
    character = (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    length = 3;
  } else if (lead >= 0xC0) {
    character = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    length = 2;
  }
  position += length;
  return character;
}

size_t previous_character_start(std::string_view text, size_t end) {
  do
    --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

void append_utf8(char32_t character, std::string &text) {
  utf8proc_uint8_t bytes[4];
  utf8proc_ssize_t length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes);
  text.append(reinterpret_cast<const char *>(bytes), static_cast<size_t>(length));
}

bool is_ascii(std::string_view text) {
  for (char byte : text)
    if (static_cast<unsigned char>(byte) >= 0x80)
      return false;
  return true;
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(char32_t character) {
  utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(character));
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool is_mark(char32_t character) {
  utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(character));
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool is_word_character(char32_t c) {
  utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL)
    return true; // letters, marks, decimal digits and letter numbers are adjacent in utf8proc's enumeration
  // Enclosed letters are symbols that Unicode calls alphabetic.
  bool enclosed_letter = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  return category == UTF8PROC_CATEGORY_PC || enclosed_letter || c == 0x200C || c == 0x200D;
}

} // namespace freeport
