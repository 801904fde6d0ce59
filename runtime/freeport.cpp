// The C interface: each function checks its pointers, calls the class behind it and turns a Status into an fp_error.
#include "runtime/freeport.h"

#include "runtime/host_device.h"
#include "runtime/sampler.h"
#include "runtime/session.h"

#include <algorithm>
#include <string>

using freeport::Code;
using freeport::Result;
using freeport::Status;

static_assert(int(Code::kInternal) == FP_INTERNAL && int(Code::kOutOfRange) == FP_OUT_OF_RANGE);

struct fp_model {
  std::shared_ptr<freeport::Model> model;
  std::once_flag tokenizer_once;
  std::shared_ptr<const freeport::Tokenizer> tokenizer; ///< null until somebody wants text
  Status tokenizer_status;
};

struct fp_text_stream {
  std::shared_ptr<const freeport::Tokenizer> tokenizer;
  freeport::Detokenizer detokenizer;
  std::string text;
};

struct fp_session {
  std::unique_ptr<freeport::Session> session;
  std::vector<freeport::Row> rows;
};

struct fp_sampler {
  freeport::Sampler sampler;
};

namespace {

int32_t missing(const char *what, fp_error *error) {
  return freeport::fill_error(Status(Code::kInvalidArgument, std::string("expects ") + what + ", got NULL"), error);
}

int32_t finish(const Status &status, fp_error *error) { return status.ok() ? 0 : freeport::fill_error(status, error); }

/// Stores the value of `result`, or its error.
template <typename T> int32_t finish(const Result<T> &result, T *value, fp_error *error) {
  if (!result.ok())
    return freeport::fill_error(result.status(), error);
  *value = result.value();
  return 0;
}

Result<std::shared_ptr<const freeport::Tokenizer>> tokenizer_of(fp_model *model) {
  std::call_once(model->tokenizer_once, [&] {
    auto opened = freeport::open_tokenizer(model->model->package());
    if (opened.ok())
      model->tokenizer = std::move(opened).value();
    else
      model->tokenizer_status = opened.status();
  });
  FP_RETURN_IF_ERROR(model->tokenizer_status);
  return model->tokenizer;
}

} // namespace

const char *fp_version(void) { return FREEPORT_VERSION; }

int32_t fp_model_open(const char *path, const fp_model_options *options, fp_model **model, fp_error *error) {
  if (!path || !model)
    return missing("a path and a place for the model", error);
  freeport::ModelOptions chosen;
  if (options) {
    chosen.device = options->device ? options->device : "";
    chosen.threads = options->threads;
  }
  auto package = freeport::Package::open(path);
  if (!package.ok())
    return finish(package.status(), error);
  auto opened = freeport::Model::open(*package, chosen);
  if (!opened.ok())
    return finish(opened.status(), error);
  *model = new fp_model{*opened, {}, {}, {}};
  return 0;
}

void fp_model_close(fp_model *model) { delete model; }

void fp_model_describe(const fp_model *model, fp_model_description *description) {
  if (!description)
    return;
  *description = {};
  if (!model)
    return;
  const auto &manifest = model->model->package().manifest();
  const auto *family = manifest.provenance()->family();
  *description = {int64_t(manifest.vocabulary_size()), int64_t(manifest.maximum_context()),
                  int64_t(manifest.parameter_count()), manifest.text()->beginning_token(),
                  family ? family->c_str() : "",       model->model->api().name,
                  model->model->description().threads, manifest.text()->tokenizer() != nullptr};
}

int32_t fp_model_is_end_token(const fp_model *model, int32_t token) {
  return model && model->model->package().is_end_token(token);
}

int32_t fp_model_tokenize(fp_model *model, const char *text, size_t bytes, int32_t add_special, int32_t *tokens,
                          size_t capacity, size_t *count, fp_error *error) {
  if (!model || (!text && bytes) || (!tokens && capacity) || !count)
    return missing("a model, a text and places for the result", error);
  auto tokenizer = tokenizer_of(model);
  if (!tokenizer.ok())
    return finish(tokenizer.status(), error);
  auto ids = (*tokenizer)->encode({text, bytes}, {.add_special_tokens = add_special != 0});
  if (!ids.ok())
    return finish(ids.status(), error);
  *count = ids->size();
  if (ids->size() > capacity)
    return finish(Status(Code::kOutOfRange, "expects room for " + std::to_string(ids->size()) + " tokens, got " +
                                                std::to_string(capacity)),
                  error);
  std::copy(ids->begin(), ids->end(), tokens);
  return 0;
}

int32_t fp_text_stream_create(fp_model *model, int32_t skip_special, fp_text_stream **stream, fp_error *error) {
  if (!model || !stream)
    return missing("a model and a place for the stream", error);
  auto tokenizer = tokenizer_of(model);
  if (!tokenizer.ok())
    return finish(tokenizer.status(), error);
  *stream = new fp_text_stream{*tokenizer, freeport::Detokenizer(**tokenizer, skip_special != 0), {}};
  return 0;
}

void fp_text_stream_destroy(fp_text_stream *stream) { delete stream; }

const char *fp_text_stream_push(fp_text_stream *stream, int32_t token) {
  if (!stream)
    return "";
  auto text = stream->detokenizer.push(token);
  stream->text = text.ok() ? std::move(text).value() : std::string();
  return stream->text.c_str();
}

const char *fp_text_stream_finish(fp_text_stream *stream) {
  if (!stream)
    return "";
  stream->text = stream->detokenizer.finish();
  return stream->text.c_str();
}

int32_t fp_session_create(fp_model *model, const fp_session_options *options, fp_session **session, fp_error *error) {
  if (!model || !session)
    return missing("a model and a place for the session", error);
  freeport::SessionOptions chosen;
  if (options)
    chosen = {options->context, options->sequences, options->pages, options->step_tokens, options->logit_rows};
  auto created = freeport::Session::create(model->model, chosen);
  if (!created.ok())
    return finish(created.status(), error);
  *session = new fp_session{std::move(created).value(), {}};
  return 0;
}

void fp_session_destroy(fp_session *session) { delete session; }

int32_t fp_session_add(fp_session *session, int32_t *sequence, fp_error *error) {
  if (!session || !sequence)
    return missing("a session and a place for the sequence", error);
  return finish(session->session->add(), sequence, error);
}

int32_t fp_session_fork(fp_session *session, int32_t sequence, int32_t *copy, fp_error *error) {
  if (!session || !copy)
    return missing("a session and a place for the sequence", error);
  return finish(session->session->fork(sequence), copy, error);
}

int32_t fp_session_rewind(fp_session *session, int32_t sequence, int64_t length, fp_error *error) {
  if (!session)
    return missing("a session", error);
  return finish(session->session->rewind(sequence, length), error);
}

int32_t fp_session_drop(fp_session *session, int32_t sequence, fp_error *error) {
  if (!session)
    return missing("a session", error);
  return finish(session->session->drop(sequence), error);
}

int64_t fp_session_length(const fp_session *session, int32_t sequence) {
  if (!session)
    return -1;
  auto length = session->session->length(sequence);
  return length.ok() ? *length : -1;
}

int64_t fp_session_pages_used(const fp_session *session) {
  return session ? int64_t(session->session->pages_used()) : 0;
}

int32_t fp_session_step(fp_session *session, const fp_row *rows, size_t count, fp_error *error) {
  if (!session || (!rows && count))
    return missing("a session and rows", error);
  session->rows.clear();
  for (size_t i = 0; i < count; ++i)
    session->rows.push_back({rows[i].token, rows[i].sequence, rows[i].logits != 0});
  return finish(session->session->step(session->rows), error);
}

int32_t fp_session_feed(fp_session *session, int32_t sequence, const int32_t *tokens, size_t count, fp_error *error) {
  if (!session || (!tokens && count))
    return missing("a session and tokens", error);
  return finish(session->session->feed(sequence, {tokens, count}, 0, /*logits=*/true, nullptr, nullptr), error);
}

const float *fp_session_logits(const fp_session *session, size_t index) {
  if (!session)
    return nullptr;
  const auto logits = session->session->logits(index);
  return logits.empty() ? nullptr : logits.data();
}

int32_t fp_sampler_create(const fp_sampling *sampling, fp_sampler **sampler, fp_error *error) {
  if (!sampling || !sampler)
    return missing("sampling options and a place for the sampler", error);
  auto created = freeport::Sampler::create(
      {sampling->temperature, sampling->top_k, sampling->top_p, sampling->min_p, sampling->seed});
  if (!created.ok())
    return finish(created.status(), error);
  *sampler = new fp_sampler{std::move(created).value()};
  return 0;
}

void fp_sampler_destroy(fp_sampler *sampler) { delete sampler; }

int32_t fp_sampler_choose(fp_sampler *sampler, const float *logits, size_t count, int64_t position) {
  if (!sampler || !logits || count == 0)
    return -1;
  return sampler->sampler.choose({logits, count}, uint64_t(position));
}
