// Chooses the next token from logits: design.md §4, "Sampling", so the same seed, position and logits give the same
// token on every machine.
#pragma once

#include "runtime/status.h"

#include <cstdint>
#include <span>
#include <vector>

namespace freeport {

struct Sampling {
  float temperature = 1; ///< 0 chooses the best token and ignores the rest
  int32_t top_k = 0;     ///< keep so many of the best; 0: all
  float top_p = 1;       ///< keep the fewest of the best whose share reaches this
  float min_p = 0;       ///< keep those of at least this times the best one's probability
  uint64_t seed = 0;
};

/// The token of the largest logit, the lowest id among equals. NaNs lose to all; 0 where there is nothing else.
int32_t argmax(std::span<const float> logits);

/// One user at a time.
class Sampler {
public:
  /// kInvalidArgument if an option is outside its range.
  static Result<Sampler> create(const Sampling &options);

  const Sampling &options() const { return options_; }

  /// The token for `position` of the sequence. A NaN is never chosen unless there is nothing else, which gives 0.
  /// Allocates only when a vocabulary is larger than any before.
  int32_t choose(std::span<const float> logits, uint64_t position);

private:
  struct Candidate {
    float value; ///< logit over temperature, later exp
    int32_t id;
  };

  explicit Sampler(const Sampling &options) : options_(options) {}
  void gather(std::span<const float> logits, float best);
  void sort();

  Sampling options_;
  std::vector<Candidate> candidates_;
};

} // namespace freeport
