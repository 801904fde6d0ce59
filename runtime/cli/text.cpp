// `freeport tokenize` and `freeport detokenize`: the tokenizer of a package or checkpoint folder, alone.
#include "runtime/cli/verbs.h"
#include "runtime/tokenizer.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstdio>

namespace freeport::cli {
namespace {

using nlohmann::json;

struct TextArguments {
  std::string source, text, ids;
  bool lines = false, special = false, has_text = false;
};

int tokenize(const TextArguments &arguments) {
  auto tokenizer = open_tokenizer(arguments.source);
  if (!tokenizer.ok())
    return fail(tokenizer.status().message());
  auto print = [&](const std::string &text) {
    auto ids = (*tokenizer)->encode(text, {.add_special_tokens = arguments.special});
    if (!ids.ok())
      return fail(ids.status().message());
    fmt::print("{}\n", json(*ids).dump());
    return 0;
  };
  if (!arguments.lines) {
    const std::string text = arguments.has_text ? arguments.text : read_standard_input();
    return interrupted ? fail("interrupted") : print(text);
  }
  std::string line;
  for (size_t number = 1; read_line(line); ++number) {
    json text = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!text.is_string())
      return fail(fmt::format("line {}: expects one JSON string", number));
    if (int code = print(text.get<std::string>()))
      return code;
  }
  return exit_code(0);
}

int detokenize(const TextArguments &arguments) {
  auto tokenizer = open_tokenizer(arguments.source);
  if (!tokenizer.ok())
    return fail(tokenizer.status().message());
  auto print = [&](const std::vector<int32_t> &ids, bool as_json) {
    auto text = (*tokenizer)->decode(ids, !arguments.special);
    if (!text.ok())
      return fail(text.status().message());
    fmt::print("{}\n", as_json ? json(*text).dump() : *text);
    return 0;
  };
  if (!arguments.lines) {
    const Result<std::vector<int32_t>> ids = arguments.ids.empty() ? std::vector<int32_t>() : parse_ids(arguments.ids);
    return ids.ok() ? print(ids.value(), false) : fail(ids.status());
  }
  std::string line;
  for (size_t number = 1; read_line(line); ++number) {
    json list = json::parse(line, nullptr, /*allow_exceptions=*/false);
    bool good = list.is_array();
    std::vector<int32_t> ids;
    for (const json &id : good ? list : json::array()) {
      good &= id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX;
      ids.push_back(good ? id.get<int32_t>() : 0);
    }
    if (!good)
      return fail(fmt::format("line {}: expects one JSON array of token ids", number));
    if (int code = print(ids, true))
      return code;
  }
  return exit_code(0);
}

} // namespace

void add_text(CLI::App &app, Action &action) {
  auto arguments = std::make_shared<TextArguments>();
  CLI::App *encode = app.add_subcommand("tokenize", "Text to token ids, as a JSON array");
  encode->add_option("source", arguments->source, "Package or checkpoint folder")->required();
  CLI::Option *text = encode->add_option("-p,--prompt", arguments->text, "The text; standard input if absent");
  encode->add_flag("--jsonl", arguments->lines, "One JSON string a line in, one JSON array a line out");
  encode->add_flag("--special", arguments->special, "Add the special tokens that begin and end a text");
  encode->footer("Example:  freeport tokenize ./tiny-moe -p \"It is a truth\"");
  encode->callback([arguments, text, &action] {
    arguments->has_text = text->count() > 0;
    action = [arguments] { return tokenize(*arguments); };
  });
  CLI::App *decode = app.add_subcommand("detokenize", "Token ids to text");
  decode->add_option("source", arguments->source, "Package or checkpoint folder")->required();
  CLI::Option_group *ids = decode->add_option_group("tokens", "The ids");
  ids->add_option("--ids", arguments->ids, "Ids, separated by commas");
  ids->add_flag("--jsonl", arguments->lines, "One JSON array of ids a line in, one JSON string a line out");
  ids->require_option(1);
  decode->add_flag("--special", arguments->special, "Keep special tokens");
  decode->footer("Example:  freeport detokenize ./tiny-moe --ids 262,284,83");
  decode->callback([arguments, &action] { action = [arguments] { return detokenize(*arguments); }; });
}

} // namespace freeport::cli
