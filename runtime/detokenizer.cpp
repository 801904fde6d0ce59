// Detokenizer and Tokenizer::decode: decoding whole is streaming without pauses. At most three bytes are held back.
#include "runtime/tokenizer.h"
#include "runtime/utf8.h"

namespace freeport {

Result<std::string> Detokenizer::push(int32_t id) {
  std::string text;
  std::string_view bytes = tokenizer_.token_bytes(id);
  if (bytes.empty() || (skip_special_tokens_ && tokenizer_.is_special(id)))
    return text;
  if (started_)
    pending_ += tokenizer_.separator();
  started_ = true;
  pending_ += bytes;
  pending_.erase(0, append_valid_utf8(pending_, /*keep_incomplete=*/true, text));
  return text;
}

std::string Detokenizer::finish() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  started_ = false;
  return text;
}

Result<std::string> Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  Detokenizer detokenizer(*this, skip_special_tokens);
  std::string text;
  for (int32_t id : ids) {
    FP_ASSIGN_OR_RETURN(std::string piece, detokenizer.push(id));
    text += piece;
  }
  return text + detokenizer.finish();
}

} // namespace freeport
