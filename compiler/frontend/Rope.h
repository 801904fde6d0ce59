// Inverse frequencies of rotary embeddings, computed at compile time by one portable definition: default, linear,
// llama3 and yarn (transformers' modeling_rope_utils.py), from both spellings of the configuration.
#pragma once

#include "compiler/checkpoint/Config.h"

#include <vector>

namespace freeport::frontend {

struct Rope {
  std::vector<float> frequencies; ///< one for each pair
  float factor = 1;               ///< on cosine and sine
  double attentionScale = 1;      ///< on the softmax scale (DeepSeek's yarn)
};

/// Reads rope_theta + rope_scaling, or rope_parameters; problems are kept in `config`.
Rope readRope(checkpoint::Config &config, int64_t dimensions);

/// Natural logarithm and power for x > 0, out of + - * / on doubles only: the same bits on every machine.
double portableLog(double x);
double portableExp(double x);

} // namespace freeport::frontend
