// Names of character properties, categories and POSIX sets as Oniguruma knows them, in PCRE2's spelling. A content is
// what goes between [ and ].
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace freeport {

// PCRE2's own \s and \w differ from Oniguruma's: U+180E, marks, connectors.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{d7ff}\x{e000}-\x{10ffff})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Oniguruma counts these as words too, but only outside brackets.
constexpr std::string_view kLatin1Numbers = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kHexadecimal = "0-9A-Fa-f";

/// The content of [:name:], if there is such a set.
std::optional<std::string_view> posix_set(std::string_view name);

/// The content of \p{name}, where `name` is in lower case without spaces, hyphens and underscores. A name that is no
/// known category or property is taken for a script, which PCRE2 checks.
std::string property_set(std::string_view name);

/// Whether `name` (as above) is a property that differs between the cases of a letter.
bool is_case_property(std::string_view name);

} // namespace freeport
