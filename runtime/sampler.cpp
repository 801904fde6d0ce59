// Sums run over candidates in descending order, from 1 for the best one. A candidate below 2^-24 leaves such a sum as
// it is: it can be neither drawn nor where top-p cuts, so only those above are sorted, and the result is that of
// sorting all.
#include "runtime/sampler.h"

#include "runtime/philox.h"
#include "runtime/portable_math.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace freeport {

namespace {

/// exp(-17) < 2^-24 by a margin far above the error of portable_exp.
constexpr float kLowest = -17;

/// Uniform in [0, 1), a multiple of 2^-24.
float uniform(uint64_t seed, uint64_t position) {
  auto low = [](uint64_t value) { return static_cast<uint32_t>(value); };
  auto high = [](uint64_t value) { return static_cast<uint32_t>(value >> 32); };
  uint32_t word = philox4x32({low(position), high(position), 0, 0}, {low(seed), high(seed)})[0];
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

Status refuse(const char *expected, float found) {
  return Status(Code::kInvalidArgument, fmt::format("sampling: expects {}, got {}", expected, found));
}

} // namespace

int32_t argmax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i)
    if (logits[i] > logits[best] || (std::isnan(logits[best]) && !std::isnan(logits[i])))
      best = i;
  return static_cast<int32_t>(best);
}

Result<Sampler> Sampler::create(const Sampling &options) {
  if (!(options.temperature >= 0 && std::isfinite(options.temperature)))
    return refuse("a finite temperature of at least 0", options.temperature);
  if (options.top_k < 0)
    return Status(Code::kInvalidArgument,
                  fmt::format("sampling: expects a top-k of at least 0 (0: all), got {}", options.top_k));
  if (!(options.top_p > 0 && options.top_p <= 1))
    return refuse("a top-p above 0 and up to 1", options.top_p);
  if (!(options.min_p >= 0 && options.min_p <= 1))
    return refuse("a min-p from 0 to 1", options.min_p);
  return Sampler(options);
}

void Sampler::gather(std::span<const float> logits, float best) {
  candidates_.clear();
  candidates_.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    float value = logits[i] / options_.temperature;
    if (value - best >= kLowest)
      candidates_.push_back({value, static_cast<int32_t>(i)});
  }
}

void Sampler::sort() {
  auto before = [](const Candidate &a, const Candidate &b) {
    return a.value > b.value || (a.value == b.value && a.id < b.id);
  };
  size_t count = candidates_.size();
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < count) {
    count = static_cast<size_t>(options_.top_k);
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(count), candidates_.end(),
                     before);
    candidates_.resize(count);
  }
  std::sort(candidates_.begin(), candidates_.end(), before);
}

int32_t Sampler::choose(std::span<const float> logits, uint64_t position) {
  int32_t greedy = argmax(logits);
  if (options_.temperature == 0 || logits.empty())
    return greedy;
  // Where this overflows, every other logit is infinitely far away; it also is where no logit is finite.
  float best = logits[static_cast<size_t>(greedy)] / options_.temperature;
  if (!std::isfinite(best))
    return greedy;
  gather(logits, best);
  sort();

  float total = 0;
  for (Candidate &candidate : candidates_) {
    candidate.value = portable_exp(candidate.value - best);
    total += candidate.value;
  }
  float share = options_.top_p * total;
  size_t kept = 0;
  float sum = 0;
  while (kept < candidates_.size() && sum < share && candidates_[kept].value >= options_.min_p)
    sum += candidates_[kept++].value;

  // As u <= 1 - 2^-24 and sum >= 1, the product rounds to less than the sum: the loop finds a token.
  float target = uniform(options_.seed, position) * sum;
  float running = 0;
  for (size_t i = 0; i < kept; ++i) {
    running += candidates_[i].value;
    if (running > target)
      return candidates_[i].id;
  }
  return greedy;
}

} // namespace freeport
