// Typed reading of config.json: every key that a family uses is asked for by type and range, and a value that it cannot
// honour is refused with the key's name, what was expected and what was found.
#pragma once

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <vector>

namespace freeport::checkpoint {

/// Parses `text` as one JSON document without duplicate keys, at most 64 levels deep: what is later copied or printed
/// by recursion must not exhaust the stack. `path` is for messages.
llvm::Expected<nlohmann::json> parseJson(llvm::StringRef path, llvm::StringRef text);

/// An object of config.json. The first problem is kept and every later answer is a harmless default, so that a frontend
/// reads all its keys and then asks `takeError` once.
class Config {
public:
  /// Parses `text`; `path` is for messages.
  static llvm::Expected<Config> parse(llvm::StringRef path, llvm::StringRef text);
  /// The same over an object that is there.
  static Config of(llvm::StringRef path, nlohmann::json object);

  bool has(llvm::StringRef key) const;                                           ///< present and not null
  bool mentions(llvm::StringRef key) const { return value.contains(key.str()); } ///< present, perhaps null
  bool empty() const { return value.empty(); }
  int64_t integer(llvm::StringRef key, int64_t minimum, int64_t maximum = INT32_MAX);
  int64_t integerOr(llvm::StringRef key, int64_t fallback, int64_t minimum, int64_t maximum = INT32_MAX);
  double number(llvm::StringRef key);
  double positive(llvm::StringRef key);
  double numberOr(llvm::StringRef key, double fallback);
  bool booleanOr(llvm::StringRef key, bool fallback);
  std::string string(llvm::StringRef key);
  std::string stringOr(llvm::StringRef key, llvm::StringRef fallback);
  /// The object at `key`; an empty one where it is absent or null.
  Config object(llvm::StringRef key);
  /// The first element of the array of text at `key`.
  std::string firstString(llvm::StringRef key);
  /// The arrays of text, of integers and of numbers at `key`; empty where it is absent or null.
  std::vector<std::string> strings(llvm::StringRef key);
  std::vector<int64_t> integers(llvm::StringRef key);
  std::vector<double> numbers(llvm::StringRef key);

  /// Refuses a value other than `expected` (absent passes).
  void require(llvm::StringRef key, const nlohmann::json &expected, llvm::StringRef why);
  /// Records a problem with `key`.
  void fail(llvm::StringRef key, const llvm::Twine &expected);
  /// Moves the first problem of `part` here.
  void adopt(Config &part);
  llvm::Error takeError();

private:
  const nlohmann::json *find(llvm::StringRef key) const;
  std::string path;
  nlohmann::json value;
  std::optional<std::string> problem;
};

} // namespace freeport::checkpoint
