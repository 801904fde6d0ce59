// UTF-8 and the few character properties that tokenizers ask for. Everything after `replace_invalid_utf8` may rely on
// valid text, so that no later stage checks it again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace freeport {

/// A half-open range of bytes of some text.
struct Span {
  size_t begin = 0;
  size_t end = 0;
};

/// Appends `bytes` to `text`; each maximal piece that is no UTF-8 becomes one U+FFFD. With `keep_incomplete`, a last
/// character that more bytes could complete is left out. Returns the number of bytes consumed.
size_t append_valid_utf8(std::string_view bytes, bool keep_incomplete, std::string &text);

/// The whole of `bytes` as valid UTF-8.
std::string replace_invalid_utf8(std::string_view bytes);

/// The character of valid UTF-8 `text` that starts at `position`, which moves behind it.
char32_t next_character(std::string_view text, size_t &position);

/// The start of the character that ends at `end` > 0 in valid UTF-8.
size_t previous_character_start(std::string_view text, size_t end);

void append_utf8(char32_t character, std::string &text);

bool is_ascii(std::string_view text);
/// Unicode White_Space.
bool is_white_space(char32_t character);
/// General category N.
bool is_numeric(char32_t character);
/// General category M.
bool is_mark(char32_t character);
/// Letters, marks, decimal digits, connectors, joiners: what regular expressions call \w.
bool is_word_character(char32_t character);

} // namespace freeport
