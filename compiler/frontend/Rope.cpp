// Frequencies are rounded where the models' own definition rounds them, in float32 step by step: closer to the exact
// value would be farther from what they were trained with.
#include "compiler/frontend/Rope.h"

#include "llvm/ADT/STLExtras.h"

#include <algorithm>
#include <cmath>

namespace freeport::frontend {

static constexpr double kLog2 = 0.69314718055994530942;

double portableLog(double x) {
  int exponent;
  double mantissa = std::frexp(x, &exponent); // exact
  if (mantissa < 0.70710678118654752440) {
    mantissa *= 2;
    --exponent;
  }
  double t = (mantissa - 1) / (mantissa + 1), square = t * t, sum = 0;
  for (int n = 27; n >= 1; n -= 2)
    sum = sum * square + 1.0 / n;
  return exponent * kLog2 + 2 * t * sum;
}

double portableExp(double x) {
  double n = std::nearbyint(x / kLog2), r = x - n * kLog2, sum = 1;
  for (int k = 20; k >= 1; --k)
    sum = 1 + r / k * sum;
  return std::ldexp(sum, static_cast<int>(n));
}

Rope readRope(checkpoint::Config &config, int64_t dimensions) {
  Rope rope;
  checkpoint::Config scaling = config.object("rope_scaling");
  if (scaling.empty()) {
    config.adopt(scaling);
    scaling = config.object("rope_parameters");
  }
  checkpoint::Config &withTheta = scaling.has("rope_theta") ? scaling : config;
  double theta = withTheta.numberOr("rope_theta", 10000);
  if (!(theta > 1))
    withTheta.fail("rope_theta", "a number above 1");
  scaling.require("partial_rotary_factor", 1, "these families rotate whole heads");
  std::string type = scaling.stringOr(scaling.has("rope_type") ? "rope_type" : "type", "default");
  double logTheta = portableLog(std::max(theta, 1.0000001));
  // Of the float32 exponents and powers of the definition: a rounding here is an angle at the thousandth token.
  std::vector<float> powers, &frequencies = rope.frequencies;
  for (int64_t i = 0; i < dimensions / 2; ++i) {
    float exponent = static_cast<float>(2 * i) / static_cast<float>(dimensions);
    powers.push_back(static_cast<float>(portableExp(logTheta * exponent)));
    frequencies.push_back(1 / powers.back());
  }
  auto factorOf = [&] {
    double factor = scaling.number("factor");
    if (!(factor > 0))
      scaling.fail("factor", "a positive number");
    return std::max(factor, 1e-6);
  };
  auto original = [&] {
    if (scaling.has("original_max_position_embeddings"))
      return static_cast<double>(scaling.integer("original_max_position_embeddings", 1));
    return static_cast<double>(config.integer("max_position_embeddings", 1));
  };
  constexpr double kTwoPi = 6.28318530717958647692;
  auto magnitude = [](double factor, double scale) {
    return factor <= 1 ? 1.0 : 0.1 * scale * portableLog(factor) + 1.0;
  };
  if (type == "linear") {
    float factor = static_cast<float>(factorOf());
    for (float &frequency : frequencies)
      frequency /= factor;
  } else if (type == "llama3") {
    float factor = static_cast<float>(factorOf());
    double low = scaling.number("low_freq_factor"), high = scaling.number("high_freq_factor");
    double length = original();
    if (!(high > low) || !(low > 0))
      scaling.fail("high_freq_factor", "a number above low_freq_factor, itself positive");
    for (float &frequency : frequencies) {
      float wavelength = 1 / frequency * static_cast<float>(kTwoPi);
      if (wavelength > static_cast<float>(length / low)) {
        frequency /= factor;
      } else if (!(wavelength < static_cast<float>(length / high))) {
        float rotations = 1 / wavelength * static_cast<float>(length);
        float smooth = (rotations - static_cast<float>(low)) / static_cast<float>(high - low);
        float scaled = (1 - smooth) * frequency / factor, kept = smooth * frequency;
        frequency = scaled + kept;
      }
    }
  } else if (type == "yarn") {
    double length = original();
    double factor = scaling.has("factor") ? factorOf() : config.integer("max_position_embeddings", 1) / length;
    auto rotationsOr = [&](llvm::StringRef key, double fallback) {
      double rotations = scaling.numberOr(key, fallback);
      return rotations == 0 ? fallback : rotations;
    };
    double fast = rotationsOr("beta_fast", 32), slow = rotationsOr("beta_slow", 1);
    auto correction = [&](double rotations) {
      return dimensions * portableLog(length / (std::max(rotations, 1e-9) * kTwoPi)) / (2 * logTheta);
    };
    double low = correction(fast), high = correction(slow);
    if (scaling.booleanOr("truncate", true)) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, dimensions - 1.0);
    if (low == high)
      high += 0.001;
    for (int64_t i = 0; i < dimensions / 2; ++i) {
      float position = static_cast<float>(i) - static_cast<float>(low);
      float kept = 1 - std::clamp(position / static_cast<float>(high - low), 0.0f, 1.0f);
      float slowed = 1 / (static_cast<float>(factor) * powers[i]) * (1 - kept), whole = frequencies[i] * kept;
      frequencies[i] = slowed + whole;
    }
    double mscale = scaling.numberOr("mscale", 0), all = scaling.numberOr("mscale_all_dim", 0);
    if (scaling.has("attention_factor"))
      rope.factor = static_cast<float>(scaling.number("attention_factor"));
    else if (mscale != 0 && all != 0)
      rope.factor = static_cast<float>(magnitude(factor, mscale) / magnitude(factor, all));
    else
      rope.factor = static_cast<float>(magnitude(factor, 1));
  } else if (type == "frequency_factors") { // GGUF's rope_freqs.weight
    std::vector<double> factors = scaling.numbers("frequency_factors");
    if (factors.size() != frequencies.size() || !llvm::all_of(factors, [](double factor) { return factor > 0; }))
      scaling.fail("frequency_factors", "a list of " + llvm::Twine(frequencies.size()) + " positive numbers");
    else
      for (auto [frequency, factor] : llvm::zip(frequencies, factors))
        frequency /= static_cast<float>(factor);
  } else if (type != "default") {
    scaling.fail(scaling.has("rope_type") ? "rope_type" : "type", "one of default, linear, llama3, yarn");
  }
  if (double all = scaling.numberOr("mscale_all_dim", 0); all != 0 && type != "default" && scaling.has("factor")) {
    double scale = magnitude(scaling.number("factor"), all);
    rope.attentionScale = scale * scale;
  }
  config.adopt(scaling);
  return rope;
}

} // namespace freeport::frontend
