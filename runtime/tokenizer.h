// Text to tokens and back, as tokenizer.json of Hugging Face describes it: added tokens, normalisation, splitting,
// byte-level byte-pair encoding, the tokens that frame a text, decoding. Equal to the tokenizers library, id for id.
#pragma once

#include "runtime/status.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace freeport {

struct EncodeOptions {
  bool add_special_tokens = true; ///< frame the text as the post-processor says, for instance with a begin token
};

/// A loaded tokenizer. Concurrent const calls are safe.
class Tokenizer {
public:
  /// `tokenizer_json`: the bytes of tokenizer.json. `tokenizer_config_json` may be empty; its add_bos_token and
  /// add_eos_token count where tokenizer.json has no template of its own. kCorrupt for malformed files, kUnsupported
  /// for models other than byte-level BPE.
  static Result<std::unique_ptr<Tokenizer>> create(std::string_view tokenizer_json,
                                                   std::string_view tokenizer_config_json);
  ~Tokenizer();

  /// Ids of `text`; what is not UTF-8 in it counts as U+FFFD. Fails only where a pattern exceeds its limits.
  Result<std::vector<int32_t>> encode(std::string_view text, const EncodeOptions &options) const;

  /// Text of `ids`; bytes that are not UTF-8 become U+FFFD, ids without a token are passed over.
  Result<std::string> decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// Number of tokens, added ones included.
  size_t vocabulary_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  bool is_special(int32_t id) const;

  /// What `id` adds to decoded bytes, perhaps part of a character; empty for ids without a token.
  std::string_view token_bytes(int32_t id) const;
  /// What stands between the tokens of decoded text: nothing, or a space where the file names no decoder.
  std::string_view separator() const;

private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

/// Streams ids to text: never returns half a character. One per sequence; the tokenizer must outlive it.
class Detokenizer {
public:
  explicit Detokenizer(const Tokenizer &tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  /// The text that `id` completes, perhaps none yet. All results and `finish` together equal Tokenizer::decode.
  Result<std::string> push(int32_t id);
  /// What was held back, as U+FFFD; the next `push` starts a new text.
  std::string finish();

private:
  const Tokenizer &tokenizer_;
  bool skip_special_tokens_;
  bool started_ = false;
  std::string pending_; ///< the start of a character
};

} // namespace freeport
