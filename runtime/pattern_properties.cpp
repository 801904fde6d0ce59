// The lists are short, so they are searched one by one; that happens once for each name in a pattern.
#include "runtime/pattern_properties.h"

#include <fmt/format.h>

namespace freeport {

namespace {

struct NamedSet {
  std::string_view name;
  std::string_view content;
};

constexpr NamedSet kPosixSets[] = {
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"alpha", R"(\p{Alphabetic})"},
    {"ascii", R"(\x{0}-\x{7f})"},
    {"blank", R"(\p{Zs}\x{9})"},
    {"cntrl", R"(\p{Cc})"},
    {"digit", R"(\p{Nd})"},
    {"lower", R"(\p{Lowercase})"},
    {"punct", R"(\p{P}\p{S})"},
    {"space", kSpace},
    {"upper", R"(\p{Uppercase})"},
    {"word", kWord},
    {"xdigit", kHexadecimal},
};

constexpr NamedSet kCategories[] = {
    {"any", R"(\p{Any})"},
    {"assigned", R"(\P{Cn})"},
    {"lc", R"(\p{L&})"},
    {"casedletter", R"(\p{L&})"},
    {"letter", R"(\p{L})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"modifierletter", R"(\p{Lm})"},
    {"otherletter", R"(\p{Lo})"},
    {"mark", R"(\p{M})"},
    {"combiningmark", R"(\p{M})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"spacingmark", R"(\p{Mc})"},
    {"enclosingmark", R"(\p{Me})"},
    {"number", R"(\p{N})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"letternumber", R"(\p{Nl})"},
    {"othernumber", R"(\p{No})"},
    {"punctuation", R"(\p{P})"},
    {"connectorpunctuation", R"(\p{Pc})"},
    {"dashpunctuation", R"(\p{Pd})"},
    {"openpunctuation", R"(\p{Ps})"},
    {"closepunctuation", R"(\p{Pe})"},
    {"initialpunctuation", R"(\p{Pi})"},
    {"finalpunctuation", R"(\p{Pf})"},
    {"otherpunctuation", R"(\p{Po})"},
    {"symbol", R"(\p{S})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"modifiersymbol", R"(\p{Sk})"},
    {"othersymbol", R"(\p{So})"},
    {"separator", R"(\p{Z})"},
    {"spaceseparator", R"(\p{Zs})"},
    {"lineseparator", R"(\p{Zl})"},
    {"paragraphseparator", R"(\p{Zp})"},
    {"other", R"(\p{C})"},
    {"control", R"(\p{Cc})"},
    {"format", R"(\p{Cf})"},
    {"unassigned", R"(\p{Cn})"},
    {"privateuse", R"(\p{Co})"},
    {"surrogate", R"(\p{Cs})"},
};

constexpr std::string_view kShortCategories[] = {
    "c",  "cc", "cf", "cn", "co", "cs", "l",  "ll", "lm", "lo", "lt", "lu", "m",  "mc", "me", "mn", "n",  "nd", "nl",
    "no", "p",  "pc", "pd", "pe", "pf", "pi", "po", "ps", "s",  "sc", "sk", "sm", "so", "z",  "zl", "zp", "zs"};

// Yes-or-no properties; every other name is taken for a script.
constexpr std::string_view kBinaryProperties[] = {"alphabetic",
                                                  "asciihexdigit",
                                                  "bidicontrol",
                                                  "bidimirrored",
                                                  "cased",
                                                  "caseignorable",
                                                  "dash",
                                                  "defaultignorablecodepoint",
                                                  "deprecated",
                                                  "diacritic",
                                                  "emoji",
                                                  "emojicomponent",
                                                  "emojimodifier",
                                                  "emojimodifierbase",
                                                  "emojipresentation",
                                                  "extendedpictographic",
                                                  "extender",
                                                  "graphemebase",
                                                  "graphemeextend",
                                                  "hexdigit",
                                                  "idcontinue",
                                                  "ideographic",
                                                  "idstart",
                                                  "joincontrol",
                                                  "logicalorderexception",
                                                  "lowercase",
                                                  "math",
                                                  "noncharactercodepoint",
                                                  "patternsyntax",
                                                  "patternwhitespace",
                                                  "quotationmark",
                                                  "radical",
                                                  "regionalindicator",
                                                  "softdotted",
                                                  "terminalpunctuation",
                                                  "unifiedideograph",
                                                  "uppercase",
                                                  "variationselector",
                                                  "whitespace",
                                                  "xidcontinue",
                                                  "xidstart"};

std::optional<std::string_view> find_set(std::string_view name, auto &sets) {
  for (const NamedSet &set : sets)
    if (set.name == name)
      return set.content;
  return std::nullopt;
}

bool contains(auto &names, std::string_view name) {
  for (std::string_view candidate : names)
    if (candidate == name)
      return true;
  return false;
}

} // namespace

std::optional<std::string_view> posix_set(std::string_view name) { return find_set(name, kPosixSets); }

bool is_case_property(std::string_view name) {
  constexpr std::string_view kNames[] = {
      "lu",    "ll",    "lt",        "uppercaseletter", "lowercaseletter", "titlecaseletter",
      "upper", "lower", "uppercase", "lowercase"};
  return contains(kNames, name);
}

std::string property_set(std::string_view name) {
  if (auto category = find_set(name, kCategories))
    return std::string(*category);
  if (name == "punct") // unlike [:punct:], without symbols
    return R"(\p{P})";
  if (auto posix = find_set(name, kPosixSets))
    return std::string(*posix);
  if (contains(kShortCategories, name))
    return fmt::format("\\p{{{}{}}}", static_cast<char>(name[0] - 'a' + 'A'), name.substr(1));
  if (contains(kBinaryProperties, name))
    return fmt::format("\\p{{{}}}", name);
  // Without sc: PCRE2 would also match characters that several scripts share.
  return fmt::format("\\p{{sc:{}}}", name);
}

} // namespace freeport
