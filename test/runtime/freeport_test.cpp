// The C interface where nothing is there to work on: each function that gets NULL says so or gives what stands for
// nothing.
#include "runtime/freeport.h"
#include "runtime/host_device.h"

#include <gtest/gtest.h>

#include <string>

namespace freeport {
namespace {

TEST(CInterface, AnswersNull) {
  fp_error error = {};
  auto refused = [&](int32_t code) {
    EXPECT_EQ(code, FP_INVALID_ARGUMENT);
    EXPECT_EQ(error.code, FP_INVALID_ARGUMENT);
    EXPECT_NE(std::string(error.message).find("expects"), std::string::npos) << error.message;
    error = {};
  };
  fp_model *model = nullptr;
  fp_session *session = nullptr;
  fp_text_stream *stream = nullptr;
  fp_sampler *sampler = nullptr;
  int32_t sequence = 0;
  size_t count = 0;
  refused(fp_model_open(nullptr, nullptr, &model, &error));
  refused(fp_model_open("model.port", nullptr, nullptr, &error));
  refused(fp_model_tokenize(nullptr, "a", 1, 0, nullptr, 0, &count, &error));
  refused(fp_text_stream_create(nullptr, 0, &stream, &error));
  refused(fp_session_create(nullptr, nullptr, &session, &error));
  refused(fp_session_add(nullptr, &sequence, &error));
  refused(fp_session_fork(nullptr, 0, &sequence, &error));
  refused(fp_session_rewind(nullptr, 0, 0, &error));
  refused(fp_session_drop(nullptr, 0, &error));
  refused(fp_session_step(nullptr, nullptr, 0, &error));
  refused(fp_session_feed(nullptr, 0, nullptr, 0, &error));
  refused(fp_sampler_create(nullptr, &sampler, &error));
  EXPECT_EQ(fp_session_drop(nullptr, 0, nullptr), FP_INVALID_ARGUMENT);

  fp_model_description description;
  fp_model_describe(nullptr, &description);
  EXPECT_EQ(description.vocabulary_size, 0);
  EXPECT_EQ(fp_model_is_end_token(nullptr, 0), 0);
  EXPECT_STREQ(fp_text_stream_push(nullptr, 0), "");
  EXPECT_STREQ(fp_text_stream_finish(nullptr), "");
  EXPECT_EQ(fp_session_length(nullptr, 0), -1);
  EXPECT_EQ(fp_session_pages_used(nullptr), 0);
  EXPECT_EQ(fp_session_logits(nullptr, 0), nullptr);
  const fp_sampling greedy = {0, 0, 1, 0, 0};
  ASSERT_EQ(fp_sampler_create(&greedy, &sampler, &error), 0);
  const float logits[] = {1, 2};
  EXPECT_EQ(fp_sampler_choose(sampler, logits, 2, 0), 1);
  EXPECT_EQ(fp_sampler_choose(sampler, nullptr, 2, 0), -1);
  EXPECT_EQ(fp_sampler_choose(sampler, logits, 0, 0), -1);
  EXPECT_EQ(fp_sampler_choose(nullptr, logits, 2, 0), -1);

  fp_model_close(nullptr);
  fp_session_destroy(nullptr);
  fp_text_stream_destroy(nullptr);
  fp_sampler_destroy(sampler);
}

TEST(CInterface, CutsMessagesBetweenCharacters) {
  fp_error error = {};
  const size_t room = sizeof error.message - 1;
  fill_error(Status(Code::kIo, std::string(room - 1, 'a') + "\u00E9\u00E9"), &error);
  EXPECT_EQ(std::string(error.message), std::string(room - 1, 'a'));
  fill_error(Status(Code::kIo, std::string(room - 2, 'a') + "\u00E9"), &error);
  EXPECT_EQ(std::string(error.message), std::string(room - 2, 'a') + "\u00E9");
}

} // namespace
} // namespace freeport
