// The tokenizer of a GGUF file's metadata as tokenizer.json and its companions.
#pragma once

#include "compiler/checkpoint/Config.h"
#include "compiler/checkpoint/GgufModel.h"

namespace freeport::checkpoint {

/// Adds tokenizer.json, tokenizer_config.json and chat_template.jinja to `model` where `metadata` describes byte-level
/// BPE with a known pre-tokenizer, else a note that says why not. Problems are kept in `metadata`.
void translateTokenizer(Config &metadata, GgufModel &model);

} // namespace freeport::checkpoint
