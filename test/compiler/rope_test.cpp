// Inverse frequencies against values that NumPy computed in float64 from transformers' formulas, rounded to float32.
#include "compiler/frontend/Rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace freeport::frontend {
namespace {

checkpoint::Config parse(const char *text) {
  auto config = checkpoint::Config::parse("config.json", text);
  EXPECT_TRUE(bool(config));
  return *config;
}

TEST(Rope, PortableFunctionsAgreeWithTheLibrary) {
  for (double x = 1e-6; x < 1e9; x *= 1.37) {
    EXPECT_NEAR(portableLog(x), std::log(x), 1e-14 * std::max(1.0, std::fabs(std::log(x))));
    EXPECT_NEAR(portableExp(std::log(x)) / x, 1, 1e-13);
  }
}

TEST(Rope, DefaultFrequencies) {
  checkpoint::Config config = parse(R"({"rope_theta": 10000.0})");
  Rope rope = readRope(config, 8);
  ASSERT_EQ(rope.frequencies.size(), 4u);
  EXPECT_EQ(rope.frequencies[0], 1.0f);
  EXPECT_EQ(rope.frequencies[1], 0.1f);
  EXPECT_EQ(rope.frequencies[2], 0.01f);
  EXPECT_EQ(rope.frequencies[3], 0.001f);
  EXPECT_EQ(rope.factor, 1.0f);
  EXPECT_FALSE(bool(config.takeError()));
}

TEST(Rope, BothSpellingsAreTheSame) {
  checkpoint::Config older = parse(R"({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
      "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}})");
  checkpoint::Config newer = parse(R"({"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0,
      "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}})");
  EXPECT_EQ(readRope(older, 32).frequencies, readRope(newer, 32).frequencies);
}

TEST(Rope, YarnScalesTheSoftmaxAsDeepseekDoes) {
  checkpoint::Config config =
      parse(R"({"rope_theta": 10000, "max_position_embeddings": 1280, "rope_scaling": {"type": "yarn",
      "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
      "original_max_position_embeddings": 32}})");
  Rope rope = readRope(config, 16);
  EXPECT_EQ(rope.factor, 1.0f);
  double magnitude = 0.1 * std::log(40.0) + 1;
  EXPECT_NEAR(rope.attentionScale, magnitude * magnitude, 1e-12);
}

TEST(Rope, UnknownKindsAreRefused) {
  checkpoint::Config config = parse(R"({"rope_scaling": {"rope_type": "spiral"}})");
  readRope(config, 16);
  std::string message = llvm::toString(config.takeError());
  EXPECT_NE(message.find("expects one of default, linear, llama3, yarn at 'rope_type', got \"spiral\""),
            std::string::npos)
      << message;
}

} // namespace
} // namespace freeport::frontend
