// One place words the messages about configuration keys.
#include "compiler/checkpoint/Config.h"

#include "llvm/ADT/Twine.h"

#include <cmath>

namespace freeport::checkpoint {

using nlohmann::json;

static constexpr unsigned kMaximumDepth = 64;

namespace {

/// Builds the document from JSON events, so that duplicate keys and deep nesting are seen before anything recurses.
struct DocumentReader : nlohmann::json_sax<json> {
  json document;
  std::string problem;

  bool fail(const llvm::Twine &message) {
    problem = message.str();
    return false;
  }
  json *add(json value) {
    json &place = open.empty()              ? document
                  : open.back()->is_array() ? open.back()->emplace_back()
                                            : (*open.back())[member];
    place = std::move(value);
    return &place;
  }
  bool begin(json value) {
    if (open.size() == kMaximumDepth)
      return fail("expects at most " + llvm::Twine(kMaximumDepth) + " levels of nesting, got more");
    open.push_back(add(std::move(value)));
    return true;
  }
  bool end() {
    open.pop_back();
    return true;
  }
  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(int64_t value) override { return add(value); }
  bool number_unsigned(uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string &) override { return add(value); }
  bool string(std::string &value) override { return add(std::move(value)); }
  bool binary(json::binary_t &) override { return fail("expects JSON, got bytes"); }
  bool start_object(std::size_t) override { return begin(json::object()); }
  bool end_object() override { return end(); }
  bool start_array(std::size_t) override { return begin(json::array()); }
  bool end_array() override { return end(); }
  bool key(std::string &text) override {
    if (open.back()->contains(text))
      return fail("expects each key once, got '" + text + "' twice");
    member = text;
    return true;
  }
  bool parse_error(std::size_t position, const std::string &, const nlohmann::detail::exception &) override {
    return fail("expects JSON, got something else at byte " + llvm::Twine(position));
  }

private:
  std::vector<json *> open; // an open container's siblings are complete, so its address stays
  std::string member;
};

} // namespace

llvm::Expected<json> parseJson(llvm::StringRef path, llvm::StringRef text) {
  DocumentReader reader;
  // The parser takes a zero byte for the end of the text; JSON has none.
  if (size_t zero = text.find('\0'); zero != llvm::StringRef::npos)
    reader.fail("expects JSON, got a zero byte at " + llvm::Twine(zero));
  else if (!json::sax_parse(text.begin(), text.end(), &reader) && reader.problem.empty())
    reader.fail("expects JSON");
  if (!reader.problem.empty())
    return llvm::createStringError(path + ": " + reader.problem);
  return std::move(reader.document);
}

Config Config::of(llvm::StringRef path, json object) {
  Config config;
  config.path = path.str();
  config.value = std::move(object);
  return config;
}

llvm::Expected<Config> Config::parse(llvm::StringRef path, llvm::StringRef text) {
  llvm::Expected<json> document = parseJson(path, text);
  if (!document)
    return document.takeError();
  if (!document->is_object())
    return llvm::createStringError(path + ": expects a JSON object");
  return of(path, std::move(*document));
}

const json *Config::find(llvm::StringRef key) const {
  auto found = value.find(key.str());
  return found == value.end() || found->is_null() ? nullptr : &*found;
}

bool Config::has(llvm::StringRef key) const { return find(key); }

void Config::fail(llvm::StringRef key, const llvm::Twine &expected) {
  if (problem)
    return;
  const json *found = find(key);
  std::string got = found ? found->dump(-1, ' ', false, json::error_handler_t::replace) : "nothing";
  if (got.size() > 80)
    got = got.substr(0, 77) + "...";
  problem = (path + ": expects " + expected + " at '" + key + "', got " + got).str();
}

int64_t Config::integer(llvm::StringRef key, int64_t minimum, int64_t maximum) {
  const json *found = find(key);
  bool fits =
      found && found->is_number_integer() && !(found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX);
  int64_t result = fits ? found->get<int64_t>() : minimum - 1;
  if (fits && result >= minimum && result <= maximum)
    return result;
  fail(key, "an integer from " + llvm::Twine(minimum) + " to " + llvm::Twine(maximum));
  return minimum;
}
int64_t Config::integerOr(llvm::StringRef key, int64_t fallback, int64_t minimum, int64_t maximum) {
  return has(key) ? integer(key, minimum, maximum) : fallback;
}
double Config::number(llvm::StringRef key) {
  const json *found = find(key);
  if (found && found->is_number() && std::isfinite(found->get<double>()))
    return found->get<double>();
  fail(key, "a number");
  return 1;
}
double Config::positive(llvm::StringRef key) {
  const json *found = find(key);
  if (found && found->is_number() && std::isfinite(found->get<double>()) && found->get<double>() > 0)
    return found->get<double>();
  fail(key, "a positive number");
  return 1;
}
double Config::numberOr(llvm::StringRef key, double fallback) { return has(key) ? number(key) : fallback; }
bool Config::booleanOr(llvm::StringRef key, bool fallback) {
  const json *found = find(key);
  if (!found)
    return fallback;
  if (found->is_boolean())
    return found->get<bool>();
  fail(key, "true or false");
  return fallback;
}
std::string Config::string(llvm::StringRef key) {
  const json *found = find(key);
  if (found && found->is_string())
    return found->get<std::string>();
  fail(key, "text");
  return "";
}
std::string Config::stringOr(llvm::StringRef key, llvm::StringRef fallback) {
  return has(key) ? string(key) : fallback.str();
}
Config Config::object(llvm::StringRef key) {
  Config part;
  part.path = path + ": " + key.str();
  part.value = json::object();
  if (const json *found = find(key)) {
    if (found->is_object())
      part.value = *found;
    else
      fail(key, "an object");
  }
  return part;
}
std::string Config::firstString(llvm::StringRef key) {
  const json *found = find(key);
  if (found && found->is_array() && !found->empty() && found->front().is_string())
    return found->front().get<std::string>();
  fail(key, "an array of text");
  return "";
}
std::vector<std::string> Config::strings(llvm::StringRef key) {
  std::vector<std::string> result;
  const json *found = find(key);
  if (found && !(found->is_array() && std::all_of(found->begin(), found->end(), [](auto &e) { return e.is_string(); })))
    fail(key, "an array of text");
  else if (found)
    for (const json &element : *found)
      result.push_back(element.get<std::string>());
  return result;
}
std::vector<int64_t> Config::integers(llvm::StringRef key) {
  std::vector<int64_t> result;
  const json *found = find(key);
  auto isInteger = [](const json &element) { return element.is_number_integer(); };
  if (found && !(found->is_array() && std::all_of(found->begin(), found->end(), isInteger)))
    fail(key, "an array of integers");
  else if (found)
    for (const json &element : *found)
      result.push_back(element.get<int64_t>());
  return result;
}
std::vector<double> Config::numbers(llvm::StringRef key) {
  std::vector<double> result;
  const json *found = find(key);
  auto isNumber = [](const json &element) { return element.is_number(); };
  if (found && !(found->is_array() && std::all_of(found->begin(), found->end(), isNumber)))
    fail(key, "an array of numbers");
  else if (found)
    for (const json &element : *found)
      result.push_back(element.get<double>());
  return result;
}
void Config::require(llvm::StringRef key, const json &expected, llvm::StringRef why) {
  const json *found = find(key);
  if (found && *found != expected)
    fail(key, expected.dump() + " (" + why + ")");
}
void Config::adopt(Config &part) {
  if (!problem)
    problem = part.problem;
  part.problem.reset();
}
llvm::Error Config::takeError() {
  if (!problem)
    return llvm::Error::success();
  return llvm::createStringError(*problem);
}

} // namespace freeport::checkpoint
