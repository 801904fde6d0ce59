// Inverse frequencies against transformers' own, computed by it in float32.
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

TEST(Rope, TheInnerThetaWinsOverTheOuter) {
  auto second = [](const char *text) {
    checkpoint::Config config = parse(text);
    return readRope(config, 4).frequencies[1];
  };
  EXPECT_EQ(second(R"({"rope_theta": 100, "rope_parameters": {"rope_type": "default"}})"), 0.1f);
  EXPECT_EQ(second(R"({"rope_theta": 100, "rope_parameters": {"rope_theta": 10000.0}})"), 0.01f);
  EXPECT_EQ(second(R"({"rope_theta": 100, "rope_scaling": {"type": "linear", "factor": 2.0}})"), 0.05f);
  EXPECT_EQ(second(R"({"rope_theta": 100, "rope_scaling": {"type": "default", "rope_theta": 10000.0}})"), 0.01f);
  EXPECT_EQ(second(R"({"rope_scaling": {}, "rope_parameters": {"rope_theta": 100}})"), 0.1f);
}

/// What transformers 5.24 computes, bit for bit: each float32 rounding of the definition counts at the thousandth
/// token.
TEST(Rope, FrequenciesAreRoundedAsTheDefinitionDoes) {
  auto expect = [](const char *text, std::vector<float> expected) {
    checkpoint::Config config = parse(text);
    EXPECT_EQ(readRope(config, 2 * int64_t(expected.size())).frequencies, expected) << text;
  };
  expect(R"({"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}})",
         {0x1p+0f, 0x1.db4c78p-2f, 0x1.b93a6ap-3f, 0x1.99999ap-4f, 0x1.7c3d2ap-5f, 0x1.60fb8cp-6f});
  expect(
      R"({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 500000.0}})",
      {0x1p+0f, 0x1.8d276p-3f, 0x1.595116p-7f, 0x1.ddee9ep-11f, 0x1.72ba42p-13f, 0x1.1f91fp-15f, 0x1.be2188p-18f,
       0x1.5a0f4ep-20f});
  expect(
      R"({"rope_parameters": {"rope_type": "yarn", "factor": 16.5, "beta_fast": 24.0, "beta_slow": 1.5, "truncate": false, "original_max_position_embeddings": 256, "rope_theta": 10000.0}})",
      {0x1p+0f, 0x1.ff23dep-3f, 0x1.46ff58p-5f, 0x1.f66848p-10f, 0x1.3dc014p-11f, 0x1.91ed08p-13f, 0x1.fc6686p-15f,
       0x1.418a6cp-16f});
  expect(R"({"rope_parameters": {"rope_type": "linear", "factor": 3.7, "rope_theta": 1234.5}})",
         {0x1.14c1bap-2f, 0x1.0a9992p-4f, 0x1.00d0d8p-6f, 0x1.eec812p-9f, 0x1.dc9f9p-11f});
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
