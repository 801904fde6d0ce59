// The order of work is that of the tokenizers library: added tokens in raw text, normalisation, added tokens in
// normalised text, pieces, byte pairs, framing. Each stage lives in its own file.
#include "runtime/tokenizer.h"

#include "runtime/added_tokens.h"
#include "runtime/byte_pair.h"
#include "runtime/pre_tokenizer.h"
#include "runtime/tokenizer_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace freeport {

namespace {

using Json = nlohmann::json;

// Pieces up to this length are remembered within a text; longer ones hardly recur.
constexpr size_t kRememberedPiece = 32;

/// The ids around a text.
struct Frame {
  bool from_template = false;
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

Status read_special_token(const Json &processor, const Json &piece, std::vector<int32_t> &ids) {
  FP_ASSIGN_OR_RETURN(std::string name, string_field(piece, "id"));
  auto tokens = processor.find("special_tokens");
  auto token = tokens == processor.end() ? Json::const_iterator() : tokens->find(name);
  if (tokens == processor.end() || !tokens->is_object() || token == tokens->end())
    return Status(Code::kCorrupt, fmt::format("tokenizer.json: expects \"{}\" in the template's special_tokens", name));
  FP_ASSIGN_OR_RETURN(const Json *values, array_field(*token, "ids"));
  for (const Json &value : *values) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > INT32_MAX)
      return Status(Code::kCorrupt, fmt::format("tokenizer.json: expects ids for \"{}\" in the template", name));
    ids.push_back(static_cast<int32_t>(value.get<uint64_t>()));
  }
  return Status();
}

Status read_template(const Json &processor, Frame &frame) {
  if (frame.from_template)
    return Status(Code::kUnsupported, "tokenizer.json: expects one TemplateProcessing, got two");
  frame.from_template = true;
  FP_ASSIGN_OR_RETURN(const Json *pieces, array_field(processor, "single"));
  bool after_text = false;
  for (const Json &piece : *pieces) {
    auto special = piece.find("SpecialToken");
    if (special != piece.end()) {
      FP_RETURN_IF_ERROR(read_special_token(processor, *special, after_text ? frame.after : frame.before));
      continue;
    }
    auto sequence = piece.find("Sequence");
    if (sequence == piece.end() || after_text || sequence->find("id") == sequence->end() || (*sequence)["id"] != "A")
      return Status(Code::kUnsupported, "tokenizer.json: expects a template of special tokens and the sequence A once");
    after_text = true;
  }
  if (!after_text)
    return Status(Code::kUnsupported, "tokenizer.json: expects a template that holds the sequence A");
  return Status();
}

Status read_post_processor(const Json &processor, Frame &frame) {
  if (processor.is_null())
    return Status();
  FP_ASSIGN_OR_RETURN(std::string type, string_field(processor, "type"));
  if (type == "ByteLevel") // moves offsets, not ids
    return Status();
  if (type == "TemplateProcessing")
    return read_template(processor, frame);
  if (type != "Sequence")
    return Status(Code::kUnsupported, fmt::format("tokenizer.json: expects a post_processor of type "
                                                  "TemplateProcessing, ByteLevel or Sequence, got {}",
                                                  type));
  FP_ASSIGN_OR_RETURN(const Json *members, array_field(processor, "processors"));
  for (const Json &member : *members)
    FP_RETURN_IF_ERROR(read_post_processor(member, frame));
  return Status();
}

/// How many ByteLevel decoders there are, nested ones included.
Result<int> count_byte_level(const Json &decoder) {
  FP_ASSIGN_OR_RETURN(std::string type, string_field(decoder, "type"));
  if (type == "ByteLevel")
    return 1;
  if (type != "Sequence")
    return Status(Code::kUnsupported,
                  fmt::format("tokenizer.json: expects a decoder of type ByteLevel or Sequence, got {}", type));
  FP_ASSIGN_OR_RETURN(const Json *members, array_field(decoder, "decoders"));
  int count = 0;
  for (const Json &member : *members) {
    FP_ASSIGN_OR_RETURN(int nested, count_byte_level(member));
    count += nested;
  }
  return count;
}

/// A token of tokenizer_config.json: a string, or an object with its content.
std::optional<std::string> config_token(const Json &config, const char *key) {
  auto found = config.find(key);
  if (found == config.end())
    return std::nullopt;
  if (found->is_object() && (found = found->find("content")) == config[key].end())
    return std::nullopt;
  if (!found->is_string())
    return std::nullopt;
  return found->get<std::string>();
}

const Json &field_or_null(const Json &object, const char *key) {
  static const Json null;
  auto found = object.find(key);
  return found == object.end() ? null : *found;
}

} // namespace

struct Tokenizer::Parts {
  BytePairModel model;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  AddedTokens added;
  Frame frame;
  size_t size = 0;
  std::unordered_map<std::string_view, int32_t> added_ids; ///< keys lie in `added`
  std::string separator;
  std::string bytes;             ///< of all tokens, decoded
  std::vector<size_t> bytes_end; ///< by id; a token begins where the one before it ends
  std::vector<bool> special;     ///< by id

  Status read_config(std::string_view text);
  void decode_tokens(bool byte_level);
  Status encode_text(std::string_view text, BytePairModel::Scratch &scratch, std::vector<int32_t> &ids) const;
};

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::create(std::string_view tokenizer_json,
                                                     std::string_view tokenizer_config_json) {
  FP_ASSIGN_OR_RETURN(TokenizerFile file, TokenizerFile::parse(tokenizer_json));
  auto parts = std::make_unique<Parts>();
  FP_ASSIGN_OR_RETURN(parts->model, BytePairModel::create(file));
  FP_ASSIGN_OR_RETURN(parts->normalizer, Normalizer::create(field_or_null(file.root, "normalizer")));
  FP_ASSIGN_OR_RETURN(parts->pre_tokenizer, PreTokenizer::create(field_or_null(file.root, "pre_tokenizer")));
  FP_ASSIGN_OR_RETURN(parts->added, AddedTokens::create(file.root, parts->model, parts->normalizer));
  FP_RETURN_IF_ERROR(read_post_processor(field_or_null(file.root, "post_processor"), parts->frame));

  parts->size = parts->model.size();
  for (const AddedToken &token : parts->added.tokens()) {
    parts->added_ids.emplace(token.content, token.id);
    parts->size += !parts->model.token_to_id(token.content);
  }
  const Json &decoder = field_or_null(file.root, "decoder");
  int byte_level = 0;
  if (decoder.is_null()) {
    parts->separator = " ";
  } else {
    FP_ASSIGN_OR_RETURN(byte_level, count_byte_level(decoder));
    if (byte_level > 1)
      return Status(Code::kUnsupported, "tokenizer.json: expects one ByteLevel decoder, got several");
  }
  parts->decode_tokens(byte_level == 1);
  FP_RETURN_IF_ERROR(parts->read_config(tokenizer_config_json));
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts)));
}

/// Checkpoints of the Llama kind leave the begin token to the configuration, which their Python class reads.
Status Tokenizer::Parts::read_config(std::string_view text) {
  if (text.empty() || frame.from_template)
    return Status();
  Json config = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!config.is_object())
    return Status(Code::kCorrupt, "tokenizer_config.json: expects a JSON object");
  struct Source {
    const char *flag;
    const char *token;
    std::vector<int32_t> &ids;
  };
  for (const Source &source :
       {Source{"add_bos_token", "bos_token", frame.before}, Source{"add_eos_token", "eos_token", frame.after}}) {
    auto flag = config.find(source.flag);
    if (flag == config.end() || *flag != true)
      continue;
    std::optional<std::string> token = config_token(config, source.token);
    auto id = token ? added_ids.find(*token) : added_ids.end();
    std::optional<int32_t> found = id != added_ids.end() ? std::optional(id->second)
                                   : token               ? model.token_to_id(*token)
                                                         : std::nullopt;
    if (!found)
      return Status(Code::kCorrupt, fmt::format("tokenizer_config.json: expects a {} of the vocabulary, because of {}",
                                                source.token, source.flag));
    source.ids.push_back(*found);
  }
  return Status();
}

void Tokenizer::Parts::decode_tokens(bool byte_level) {
  std::unordered_set<std::string_view> special_contents;
  std::unordered_map<int32_t, const AddedToken *> by_id;
  int32_t id_end = model.id_end();
  for (const AddedToken &token : added.tokens()) {
    if (token.special)
      special_contents.insert(token.content);
    by_id[token.id] = &token;
    id_end = std::max(id_end, token.id + 1);
  }
  bytes_end.reserve(static_cast<size_t>(id_end));
  special.reserve(static_cast<size_t>(id_end));
  for (int32_t id = 0; id < id_end; ++id) {
    auto found = by_id.find(id);
    std::string_view token = found != by_id.end() ? found->second->matched : model.id_to_token(id).value_or("");
    // By what is decoded, not by id: so a special token that normalisation changes counts as text, as in the library.
    special.push_back(special_contents.contains(token));
    if (!byte_level || !append_token_bytes(token, bytes))
      bytes += token;
    bytes_end.push_back(bytes.size());
  }
}

Status Tokenizer::Parts::encode_text(std::string_view text, BytePairModel::Scratch &scratch,
                                     std::vector<int32_t> &ids) const {
  FP_ASSIGN_OR_RETURN(Pieces pieces, pre_tokenizer.split(std::string(text)));
  std::unordered_map<std::string_view, Span> seen; // ranges of `ids`
  for (const Span &span : pieces.spans) {
    std::string_view piece = std::string_view(pieces.text).substr(span.begin, span.end - span.begin);
    if (piece.size() > kRememberedPiece) {
      FP_RETURN_IF_ERROR(model.encode(piece, scratch, ids));
      continue;
    }
    auto [known, inserted] = seen.try_emplace(piece);
    size_t begin = ids.size();
    if (inserted) {
      FP_RETURN_IF_ERROR(model.encode(piece, scratch, ids));
      known->second = {begin, ids.size()};
    } else {
      for (size_t i = known->second.begin; i < known->second.end; ++i)
        ids.push_back(ids[i]);
    }
  }
  return Status();
}

Result<std::vector<int32_t>> Tokenizer::encode(std::string_view text, const EncodeOptions &options) const {
  if (text.size() > kMaximumText)
    return Status(Code::kOutOfRange,
                  fmt::format("tokenizer: expects at most {} bytes of text, got {}", kMaximumText, text.size()));
  std::vector<int32_t> ids;
  if (options.add_special_tokens)
    ids = parts_->frame.before;
  std::string raw = replace_invalid_utf8(text);
  BytePairModel::Scratch scratch;
  for (const AddedTokens::Part &part : parts_->added.split(raw, /*normalized=*/false)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    std::string normalized = raw.substr(part.begin, part.end - part.begin);
    FP_RETURN_IF_ERROR(parts_->normalizer.apply(normalized));
    for (const AddedTokens::Part &inner : parts_->added.split(normalized, /*normalized=*/true)) {
      if (inner.id >= 0)
        ids.push_back(inner.id);
      else
        FP_RETURN_IF_ERROR(parts_->encode_text(
            std::string_view(normalized).substr(inner.begin, inner.end - inner.begin), scratch, ids));
    }
  }
  if (options.add_special_tokens)
    ids.insert(ids.end(), parts_->frame.after.begin(), parts_->frame.after.end());
  return ids;
}

size_t Tokenizer::vocabulary_size() const { return parts_->size; }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  auto added = parts_->added_ids.find(token);
  return added != parts_->added_ids.end() ? added->second : parts_->model.token_to_id(token);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < parts_->special.size() && parts_->special[static_cast<size_t>(id)];
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= parts_->bytes_end.size())
    return {};
  auto index = static_cast<size_t>(id);
  size_t begin = index == 0 ? 0 : parts_->bytes_end[index - 1];
  return std::string_view(parts_->bytes).substr(begin, parts_->bytes_end[index] - begin);
}

std::string_view Tokenizer::separator() const { return parts_->separator; }

} // namespace freeport
