// A SAX reader with three states: building the tree, inside model.vocab, inside model.merges. Depth and sizes are
// bounded here, so that recursion over the tree and 32-bit offsets are safe everywhere else.
#include "runtime/tokenizer_file.h"

#include <fmt/format.h>

namespace freeport {

namespace {

using Json = nlohmann::json;

constexpr size_t kMaximumDepth = 64;
constexpr size_t kMaximumBytes = size_t{1} << 30;
constexpr uint32_t kMaximumId = (1U << 24) - 1;

class Reader {
public:
  explicit Reader(TokenizerFile &file) : file_(file) {}

  Status status() const { return Status(Code::kCorrupt, "tokenizer.json: " + error_); }

  // What nlohmann::json::sax_parse calls; false ends the parse.
  bool null() { return scalar(nullptr); }
  bool boolean(bool value) { return scalar(value); }
  bool number_integer(Json::number_integer_t value) { return scalar(value); }
  bool number_float(Json::number_float_t value, const std::string &) { return scalar(value); }
  bool number_unsigned(Json::number_unsigned_t value) {
    if (state_ != State::kVocabulary)
      return scalar(value);
    if (value > kMaximumId)
      return fail(fmt::format("expects token ids up to {}, got {}", kMaximumId, value));
    file_.vocabulary.push_back({token_, static_cast<uint32_t>(value)});
    return true;
  }
  bool string(std::string &value) {
    if (state_ == State::kMerges)
      return merge_string(value);
    return scalar(std::move(value));
  }
  bool binary(Json::binary_t &) { return fail("expects text"); }

  bool start_object(size_t) {
    if (state_ != State::kTree)
      return misplaced();
    if (at("vocab")) {
      state_ = State::kVocabulary;
      return file_.has_vocabulary = true;
    }
    return open(Json::object());
  }
  bool key(std::string &name) {
    if (state_ == State::kVocabulary)
      token_ = store(name);
    else
      key_ = std::move(name);
    return true;
  }
  bool end_object() {
    if (state_ == State::kVocabulary)
      state_ = State::kTree;
    else
      stack_.pop_back();
    return true;
  }
  bool start_array(size_t) {
    if (state_ == State::kMerges && !in_pair_) {
      in_pair_ = true;
      pair_size_ = 0;
      return true;
    }
    if (state_ != State::kTree)
      return misplaced();
    if (at("merges")) {
      state_ = State::kMerges;
      return file_.has_merges = true;
    }
    return open(Json::array());
  }
  bool end_array() {
    if (state_ == State::kMerges && in_pair_) {
      in_pair_ = false;
      return pair_size_ == 2 || fail(fmt::format("expects merges of 2 tokens, got {}", pair_size_));
    }
    if (state_ == State::kMerges)
      state_ = State::kTree;
    else
      stack_.pop_back();
    return true;
  }
  template <typename Exception> bool parse_error(size_t position, const std::string &, const Exception &) {
    return fail(fmt::format("expects JSON, got something else at byte {}", position));
  }

private:
  enum class State { kTree, kVocabulary, kMerges };

  bool fail(std::string message) {
    error_ = std::move(message);
    return false;
  }
  bool misplaced() {
    return fail(state_ == State::kVocabulary ? "expects a number for each token of model.vocab"
                                             : "expects model.merges to hold \"a b\" or [\"a\", \"b\"]");
  }
  /// Whether the value that comes next is model.`name`.
  bool at(std::string_view name) const {
    return stack_.size() == 2 && key_ == name && stack_[0]->is_object() && stack_[1]->is_object() &&
           stack_[0]->contains("model") && &(*stack_[0])["model"] == stack_[1];
  }
  Json *add(Json value) {
    if (stack_.empty())
      return &(file_.root = std::move(value));
    if (stack_.back()->is_object())
      return &((*stack_.back())[key_] = std::move(value));
    stack_.back()->push_back(std::move(value));
    return &stack_.back()->back();
  }
  bool scalar(Json value) {
    if (state_ != State::kTree)
      return misplaced();
    add(std::move(value));
    return true;
  }
  bool open(Json container) {
    if (stack_.size() == kMaximumDepth)
      return fail(fmt::format("expects at most {} levels", kMaximumDepth));
    stack_.push_back(add(std::move(container)));
    return true;
  }
  TokenizerFile::Text store(std::string_view text) {
    // Unescaped text is no longer than its JSON, whose size is bounded, so offsets fit.
    TokenizerFile::Text stored{static_cast<uint32_t>(file_.bytes.size()), static_cast<uint32_t>(text.size())};
    file_.bytes += text;
    return stored;
  }
  bool merge_string(std::string_view text) {
    if (in_pair_) {
      if (pair_size_ == 0)
        file_.merges.push_back({store(text), {}});
      else if (pair_size_ == 1)
        file_.merges.back().right = store(text);
      ++pair_size_;
      return true;
    }
    if (text.starts_with("#version"))
      return true;
    size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
      return fail(fmt::format("expects merges of 2 tokens with a space between, got \"{}\"", text.substr(0, 100)));
    TokenizerFile::Text left = store(text.substr(0, space));
    file_.merges.push_back({left, store(text.substr(space + 1))});
    return true;
  }

  TokenizerFile &file_;
  State state_ = State::kTree;
  std::vector<Json *> stack_;
  std::string key_;
  TokenizerFile::Text token_;
  bool in_pair_ = false;
  size_t pair_size_ = 0;
  std::string error_;
};

} // namespace

Result<TokenizerFile> TokenizerFile::parse(std::string_view json) {
  if (json.size() > kMaximumBytes)
    return Status(Code::kUnsupported,
                  fmt::format("tokenizer.json: expects at most {} bytes, got {}", kMaximumBytes, json.size()));
  TokenizerFile file;
  file.bytes.reserve(json.size() / 2);
  Reader reader(file);
  if (!Json::sax_parse(json.begin(), json.end(), &reader))
    return reader.status();
  if (!file.root.is_object())
    return Status(Code::kCorrupt, fmt::format("tokenizer.json: expects an object, got {}", file.root.type_name()));
  return file;
}

Result<bool> bool_field(const Json &object, const char *key, bool fallback) {
  auto found = object.find(key);
  if (found == object.end() || found->is_null())
    return fallback;
  if (!found->is_boolean())
    return Status(Code::kCorrupt,
                  fmt::format("tokenizer.json: expects true or false for {}, got {}", key, found->type_name()));
  return found->get<bool>();
}

Result<std::string> string_field(const Json &object, const char *key) {
  auto found = object.find(key);
  if (found == object.end() || !found->is_string())
    return Status(Code::kCorrupt, fmt::format("tokenizer.json: expects a string for {}, got {}", key,
                                              found == object.end() ? "nothing" : found->type_name()));
  return found->get<std::string>();
}

Result<const Json *> array_field(const Json &object, const char *key) {
  auto found = object.find(key);
  if (found == object.end() || !found->is_array())
    return Status(Code::kCorrupt, fmt::format("tokenizer.json: expects an array for {}, got {}", key,
                                              found == object.end() ? "nothing" : found->type_name()));
  return &*found;
}

} // namespace freeport
