// The sampler against a plain implementation that sorts the whole vocabulary, Philox against its published vectors.
#include "runtime/sampler.h"

#include "runtime/philox.h"
#include "runtime/portable_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace freeport {
namespace {

/// design.md §4 word for word: every token is a candidate, nothing is left out early.
int32_t plain(const Sampling &options, const std::vector<float> &logits, uint64_t position) {
  std::vector<float> values;
  for (float logit : logits)
    values.push_back(logit / options.temperature);
  std::vector<int32_t> ids;
  for (size_t i = 0; i < logits.size(); ++i)
    if (!std::isnan(logits[i]))
      ids.push_back(static_cast<int32_t>(i));
  std::sort(ids.begin(), ids.end(),
            [&](int32_t a, int32_t b) { return values[a] > values[b] || (values[a] == values[b] && a < b); });
  if (options.top_k > 0)
    ids.resize(std::min(ids.size(), static_cast<size_t>(options.top_k)));
  std::vector<float> weights;
  float total = 0;
  for (int32_t id : ids) {
    weights.push_back(portable_exp(values[id] - values[ids[0]]));
    total += weights.back();
  }
  size_t kept = 0;
  float sum = 0;
  while (kept < ids.size() && sum < options.top_p * total && weights[kept] >= options.min_p)
    sum += weights[kept++];
  auto word = philox4x32({uint32_t(position), uint32_t(position >> 32), 0, 0},
                         {uint32_t(options.seed), uint32_t(options.seed >> 32)})[0];
  float target = std::ldexp(static_cast<float>(word >> 8), -24) * sum;
  float running = 0;
  for (size_t i = 0; i < kept; ++i)
    if ((running += weights[i]) > target)
      return ids[i];
  ADD_FAILURE() << "no token";
  return -1;
}

int32_t choose(const Sampling &options, const std::vector<float> &logits, uint64_t position = 0) {
  auto sampler = Sampler::create(options);
  EXPECT_TRUE(sampler.ok()) << sampler.status().message();
  return sampler->choose(logits, position);
}

/// Whom `draws` positions choose, how often.
std::vector<int> histogram(const Sampling &options, const std::vector<float> &logits, int draws) {
  auto sampler = Sampler::create(options);
  EXPECT_TRUE(sampler.ok());
  std::vector<int> counts(logits.size());
  for (int position = 0; position < draws; ++position)
    ++counts[static_cast<size_t>(sampler->choose(logits, static_cast<uint64_t>(position)))];
  return counts;
}

/// The logits of probabilities.
std::vector<float> logits_of(const std::vector<double> &probabilities) {
  std::vector<float> logits;
  for (double each : probabilities)
    logits.push_back(static_cast<float>(std::log(each)));
  return logits;
}

std::vector<float> random_logits(std::mt19937 &random, size_t count, float spread) {
  std::normal_distribution<float> distribution(0, spread);
  std::vector<float> logits(count);
  for (float &logit : logits)
    logit = distribution(random);
  return logits;
}

TEST(Philox, KnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  Sampling greedy{.temperature = 0};
  EXPECT_EQ(choose(greedy, {1, 3, 2, 3}), 1);
  EXPECT_EQ(choose(greedy, {-0.0f, 0.0f}), 0);
  EXPECT_EQ(choose(greedy, {NAN, -INFINITY, NAN}), 1);
  EXPECT_EQ(choose(greedy, {NAN, 1, NAN, 2, NAN}), 3);
  EXPECT_EQ(choose(greedy, {NAN, NAN}), 0);
  EXPECT_EQ(choose(greedy, {-INFINITY, INFINITY, INFINITY}), 1);
  EXPECT_EQ(choose(greedy, {}), 0);
}

TEST(Sampler, ExtremeLogits) {
  for (uint64_t position = 0; position < 100; ++position) {
    EXPECT_EQ(choose({}, {NAN, NAN}, position), 0);
    EXPECT_EQ(choose({}, {-INFINITY, -INFINITY}, position), 0);
    EXPECT_EQ(choose({}, {NAN, 3, -INFINITY}, position), 1);
    EXPECT_EQ(choose({}, {0, INFINITY, 1}, position), 1);
    EXPECT_EQ(choose({}, {-3e38f, 3e38f}, position), 1);
    EXPECT_EQ(choose({.temperature = 1e-45f}, {1, 2}, position), 1);
    EXPECT_EQ(choose({.temperature = 1e-38f}, {-2, -1, 0}, position), 2);
    EXPECT_EQ(choose({}, {}, position), 0);
  }
}

TEST(Sampler, DrawsTheDistribution) {
  std::vector<double> probabilities = {0.1, 0.4, 0.05, 0.25, 0.2};
  constexpr int kDraws = 100000;
  std::vector<int> counts = histogram({.seed = 7}, logits_of(probabilities), kDraws);
  double chi_squared = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    double expected = probabilities[i] * kDraws;
    chi_squared += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_squared, 18.5); // 4 degrees of freedom, 0.1 %
}

TEST(Sampler, TemperatureFlattens) {
  std::vector<float> logits = {0, 2};
  auto share = [&](float temperature) { return histogram({.temperature = temperature}, logits, 20000)[1] / 20000.0; };
  for (float temperature : {0.5f, 1.0f, 4.0f})
    EXPECT_NEAR(share(temperature), 1 / (1 + std::exp(-2.0 / temperature)), 0.015) << temperature;
}

TEST(Sampler, CutOffs) {
  std::vector<float> logits = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});
  auto kept = [&](Sampling options) {
    std::vector<int> ids, counts = histogram(options, logits, 2000);
    for (size_t i = 0; i < counts.size(); ++i)
      if (counts[i])
        ids.push_back(static_cast<int>(i));
    return ids;
  };
  using Ids = std::vector<int>;
  EXPECT_EQ(kept({}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept({.top_k = 1}), (Ids{1}));
  EXPECT_EQ(kept({.top_k = 3}), (Ids{1, 3, 4}));
  EXPECT_EQ(kept({.top_k = 1000}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(kept({.top_p = 1e-45f}), (Ids{1}));
  EXPECT_EQ(kept({.top_p = 0.39f}), (Ids{1}));
  EXPECT_EQ(kept({.top_p = 0.5f}), (Ids{1, 3}));
  EXPECT_EQ(kept({.top_p = 0.9f}), (Ids{0, 1, 3, 4}));
  EXPECT_EQ(kept({.min_p = 0.2f}), (Ids{0, 1, 3, 4}));
  EXPECT_EQ(kept({.min_p = 0.6f}), (Ids{1, 3}));
  EXPECT_EQ(kept({.min_p = 1}), (Ids{1}));
  EXPECT_EQ(kept({.top_k = 2, .top_p = 0.6f}), (Ids{1})); // 0.4 / 0.65 of what top-k leaves
  EXPECT_EQ(kept({.top_p = 0.9f, .min_p = 0.3f}), (Ids{1, 3, 4}));
}

TEST(Sampler, EqualsThePlainImplementation) {
  std::mt19937 random(1);
  const std::vector<float> temperatures = {0.1f, 0.7f, 1, 1.7f, 30}, shares = {1, 0.95f, 0.5f, 0.999999f},
                           minima = {0, 0.05f, 0.5f};
  for (int round = 0; round < 1200; ++round) {
    Sampling options;
    options.temperature = temperatures[random() % temperatures.size()];
    options.top_p = shares[random() % shares.size()];
    options.min_p = minima[random() % minima.size()];
    size_t count = 1 + random() % 3000;
    options.top_k = random() % 2 ? static_cast<int32_t>(random() % (count + 10)) : 0;
    options.seed = (uint64_t{random()} << 32) | random();
    std::vector<float> logits = random_logits(random, count, random() % 2 ? 5.0f : 0.2f);
    if (round % 3 == 0) // ties
      for (float &logit : logits)
        logit = std::round(logit);
    if (round % 5 == 0)
      for (int i = 0; i < 20; ++i)
        logits[random() % count] = i % 2 ? NAN : -INFINITY;
    logits[random() % count] = 1; // at least one is finite
    auto sampler = Sampler::create(options);
    ASSERT_TRUE(sampler.ok());
    for (int i = 0; i < 8; ++i) {
      uint64_t position = i < 6 ? static_cast<uint64_t>(i) : (uint64_t{random()} << 32) | random();
      ASSERT_EQ(sampler->choose(logits, position), plain(options, logits, position))
          << "temperature " << options.temperature << " top-k " << options.top_k << " top-p " << options.top_p
          << " min-p " << options.min_p << " seed " << options.seed << " position " << position;
    }
  }
}

TEST(Sampler, TopKEqualsTheWholeSort) {
  std::mt19937 random(2);
  const std::vector<float> logits = random_logits(random, 128000, 1); // flat: all of them are candidates
  auto whole = Sampler::create({.temperature = 1.5f, .seed = 5});
  auto partial = Sampler::create({.temperature = 1.5f, .top_k = 127999, .seed = 5});
  auto many = Sampler::create({.temperature = 1.5f, .top_k = INT32_MAX, .seed = 5});
  auto few = Sampler::create({.temperature = 1.5f, .top_k = 40, .seed = 5});
  for (uint64_t position = 0; position < 20; ++position) {
    int32_t expected = plain(whole->options(), logits, position);
    EXPECT_EQ(whole->choose(logits, position), expected);
    EXPECT_EQ(partial->choose(logits, position), plain(partial->options(), logits, position));
    EXPECT_EQ(many->choose(logits, position), expected);
    EXPECT_EQ(few->choose(logits, position), plain(few->options(), logits, position));
  }
}

TEST(Sampler, ASampleDependsOnSeedAndPositionAlone) {
  std::mt19937 random(3);
  const std::vector<float> logits = random_logits(random, 500, 1);
  auto sampler = Sampler::create({.seed = 9});
  std::vector<int32_t> forwards, backwards;
  for (uint64_t position = 0; position < 50; ++position)
    forwards.push_back(sampler->choose(logits, position));
  for (uint64_t position = 50; position-- > 0;)
    backwards.insert(backwards.begin(), sampler->choose(logits, position));
  EXPECT_EQ(forwards, backwards);
  EXPECT_NE(choose({.seed = 9}, logits, 0), choose({.seed = uint64_t{9} << 32}, logits, 0));
  EXPECT_NE(choose({.seed = 9}, logits, 1), choose({.seed = 9}, logits, uint64_t{1} << 32));
}

TEST(Sampler, RefusesSenselessOptions) {
  const std::pair<Sampling, const char *> cases[] = {
      {{.temperature = -1}, "sampling: expects a finite temperature of at least 0, got -1"},
      {{.temperature = INFINITY}, "sampling: expects a finite temperature of at least 0, got inf"},
      {{.temperature = NAN}, "sampling: expects a finite temperature of at least 0, got nan"},
      {{.top_k = -3}, "sampling: expects a top-k of at least 0 (0: all), got -3"},
      {{.top_p = 0}, "sampling: expects a top-p above 0 and up to 1, got 0"},
      {{.top_p = 1.5f}, "sampling: expects a top-p above 0 and up to 1, got 1.5"},
      {{.top_p = NAN}, "sampling: expects a top-p above 0 and up to 1, got nan"},
      {{.min_p = -0.5f}, "sampling: expects a min-p from 0 to 1, got -0.5"},
      {{.min_p = 2}, "sampling: expects a min-p from 0 to 1, got 2"},
  };
  for (const auto &[options, message] : cases) {
    auto sampler = Sampler::create(options);
    ASSERT_FALSE(sampler.ok()) << message;
    EXPECT_EQ(sampler.status().code(), Code::kInvalidArgument);
    EXPECT_EQ(sampler.status().message(), message);
  }
}

} // namespace
} // namespace freeport
