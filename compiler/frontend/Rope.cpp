// Doubles carry the formulas; each frequency is rounded to float once, at the end, as close to the exact value as float
// allows.
#include "compiler/frontend/Rope.h"

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
  bool newer = config.has("rope_parameters");
  checkpoint::Config scaling = config.object(newer ? "rope_parameters" : "rope_scaling");
  double theta = newer ? scaling.numberOr("rope_theta", 10000) : config.numberOr("rope_theta", 10000);
  if (!(theta > 1))
    (newer ? scaling : config).fail("rope_theta", "a number above 1");
  std::string type = scaling.stringOr(scaling.has("rope_type") ? "rope_type" : "type", "default");
  double logTheta = portableLog(std::max(theta, 1.0000001));
  std::vector<double> exact;
  for (int64_t i = 0; i < dimensions / 2; ++i)
    exact.push_back(portableExp(-logTheta * (2.0 * i / dimensions)));
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
  if (type == "linear") {
    double factor = factorOf();
    for (double &frequency : exact)
      frequency /= factor;
  } else if (type == "llama3") {
    double factor = factorOf(), low = scaling.number("low_freq_factor"), high = scaling.number("high_freq_factor");
    double length = original();
    if (!(high > low) || !(low > 0))
      scaling.fail("high_freq_factor", "a number above low_freq_factor, itself positive");
    for (double &frequency : exact) {
      double wavelength = kTwoPi / frequency;
      if (wavelength > length / low) {
        frequency /= factor;
      } else if (wavelength >= length / high) {
        double smooth = (length / wavelength - low) / (high - low);
        frequency = (1 - smooth) * frequency / factor + smooth * frequency;
      }
    }
  } else if (type == "yarn") {
    double factor = factorOf(), length = original();
    double fast = scaling.numberOr("beta_fast", 32), slow = scaling.numberOr("beta_slow", 1);
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
      double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
      exact[i] = exact[i] / factor * ramp + exact[i] * (1 - ramp);
    }
    auto magnitude = [&](double scale) { return factor <= 1 ? 1.0 : 0.1 * scale * portableLog(factor) + 1.0; };
    double mscale = scaling.numberOr("mscale", 0), all = scaling.numberOr("mscale_all_dim", 0);
    if (scaling.has("attention_factor"))
      rope.factor = static_cast<float>(scaling.number("attention_factor"));
    else if (mscale != 0 && all != 0)
      rope.factor = static_cast<float>(magnitude(mscale) / magnitude(all));
    else
      rope.factor = static_cast<float>(magnitude(1));
    if (all != 0)
      rope.attentionScale = magnitude(all) * magnitude(all);
  } else if (type != "default") {
    scaling.fail(scaling.has("rope_type") ? "rope_type" : "type", "one of default, linear, llama3, yarn");
  }
  for (double frequency : exact)
    rope.frequencies.push_back(static_cast<float>(frequency));
  config.adopt(scaling);
  return rope;
}

} // namespace freeport::frontend
