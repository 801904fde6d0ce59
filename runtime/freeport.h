/* Freeport in C: open a package, step sequences of tokens through it, sample, turn text to tokens and back.
 *
 * Functions that can fail return 0, or an fp_code with `error` filled; `error` may be NULL. Text is UTF-8 and ends with
 * NUL. A model may be used by any threads at once; a session, a tokenizer's stream and what they return by one at a
 * time. Nothing throws, and no bad file, shape or device ends the process. examples/completion.c shows a whole program.
 */
#ifndef FREEPORT_RUNTIME_FREEPORT_H
#define FREEPORT_RUNTIME_FREEPORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fp_code {
  FP_OK = 0,
  FP_INVALID_ARGUMENT = 1, /* the caller asked for something that makes no sense */
  FP_NOT_FOUND = 2,        /* a file, device or sequence of that name does not exist */
  FP_CORRUPT = 3,          /* a file does not follow its format */
  FP_UNSUPPORTED = 4,      /* well-formed, but not something that this build or device can do */
  FP_OUT_OF_MEMORY = 5,    /* host or device memory is exhausted */
  FP_OUT_OF_RANGE = 6,     /* a context, the pages or a buffer is exceeded */
  FP_IO = 7,               /* the operating system refused a read or write */
  FP_CANCELLED = 8,        /* the user interrupted */
  FP_INTERNAL = 9          /* a bug of Freeport */
} fp_code;

/* Caller-owned: nothing to free. `message` says what was expected and what was found, and is cut to fit. */
typedef struct fp_error {
  int32_t code;
  char message[1020];
} fp_error;

/* The library's version, e.g. "0.1.0". */
const char *fp_version(void);

/* ---- Models ------------------------------------------------------------------------------------------------------ */

typedef struct fp_model fp_model;

typedef struct fp_model_options {
  const char
      *device;     /* "cpu", "reference", …, perhaps with ":SELECTOR"; NULL or "": the first with code in the package */
  int32_t threads; /* host threads; 0: the device's choice */
} fp_model_options;

typedef struct fp_model_description {
  int64_t vocabulary_size;
  int64_t maximum_context; /* tokens */
  int64_t parameter_count;
  int64_t begin_token; /* -1: none */
  const char *family;  /* e.g. "DeepseekV3ForCausalLM"; lives as long as the model */
  const char *device;  /* e.g. "cpu"; likewise */
  int32_t threads;     /* that a step uses */
  int32_t has_text;    /* nonzero: the package has a tokenizer */
} fp_model_description;

/* Maps the package at `path` and loads its code for a device; `options` may be NULL. */
int32_t fp_model_open(const char *path, const fp_model_options *options, fp_model **model, fp_error *error);
/* Sessions and streams keep what they need of a model: they may outlive this call. */
void fp_model_close(fp_model *model);
void fp_model_describe(const fp_model *model, fp_model_description *description);
/* Whether generation stops at `token`. */
int32_t fp_model_is_end_token(const fp_model *model, int32_t token);

/* ---- Text -------------------------------------------------------------------------------------------------------- */

/* Writes the ids of `text` (`bytes` long) to `tokens` and their number to `count`. With `add_special`, the tokens that
 * begin and end a text are added. FP_OUT_OF_RANGE where they are more than `capacity`; `count` is then what is needed.
 */
int32_t fp_model_tokenize(fp_model *model, const char *text, size_t bytes, int32_t add_special, int32_t *tokens,
                          size_t capacity, size_t *count, fp_error *error);

/* Tokens to text, one by one: never half a character. */
typedef struct fp_text_stream fp_text_stream;
int32_t fp_text_stream_create(fp_model *model, int32_t skip_special, fp_text_stream **stream, fp_error *error);
void fp_text_stream_destroy(fp_text_stream *stream);
/* The text that `token` completes, perhaps "". Valid until the stream's next call. */
const char *fp_text_stream_push(fp_text_stream *stream, int32_t token);
/* What was held back of an unfinished character, as U+FFFD. Valid until the stream's next call. */
const char *fp_text_stream_finish(fp_text_stream *stream);

/* ---- Sessions ---------------------------------------------------------------------------------------------------- */

typedef struct fp_session fp_session;

typedef struct fp_session_options { /* 0: the default */
  int64_t context;                  /* tokens that a sequence may have; the smaller of the model's maximum and 8,192 */
  int64_t sequences;                /* that may exist at once; 1 */
  int64_t pages;                    /* of 32 tokens, shared by all sequences; enough for each to fill its context */
  int64_t step_tokens;              /* rows of one step; the most that the model takes */
  int64_t logit_rows;               /* rows of one step that may want logits; 1 */
} fp_session_options;

/* `token` is appended to `sequence`. */
typedef struct fp_row {
  int32_t token;
  int32_t sequence;
  int32_t logits; /* nonzero: the logits behind this row are wanted */
} fp_row;

int32_t fp_session_create(fp_model *model, const fp_session_options *options, fp_session **session, fp_error *error);
void fp_session_destroy(fp_session *session);

/* A new, empty sequence; FP_OUT_OF_RANGE where all exist already. */
int32_t fp_session_add(fp_session *session, int32_t *sequence, fp_error *error);
/* A copy that shares the pages of `sequence`: nothing is copied until one of both extends a page that is part full. */
int32_t fp_session_fork(fp_session *session, int32_t sequence, int32_t *copy, fp_error *error);
/* Forgets all but the first `length` tokens. */
int32_t fp_session_rewind(fp_session *session, int32_t sequence, int64_t length, fp_error *error);
int32_t fp_session_drop(fp_session *session, int32_t sequence, fp_error *error);
/* Tokens in a sequence; -1 where it does not exist. */
int64_t fp_session_length(const fp_session *session, int32_t sequence);
/* Pages that hold tokens, each counted once however many sequences share it. */
int64_t fp_session_pages_used(const fp_session *session);

/* Appends rows to their sequences, in order. Where it fails, every sequence is as it was: FP_OUT_OF_RANGE where a
 * context or the pages are exceeded. A sequence's logits have the same bits whatever shares its steps and however its
 * tokens are cut. */
int32_t fp_session_step(fp_session *session, const fp_row *rows, size_t count, fp_error *error);
/* Appends `count` tokens, at least one, to `sequence` in as few steps as it takes; the last token's logits are then
 * fp_session_logits(…, 0). Where it fails, the sequence is as it was. */
int32_t fp_session_feed(fp_session *session, int32_t sequence, const int32_t *tokens, size_t count, fp_error *error);
/* Logits of the last step's row `index` among those that wanted them: vocabulary_size floats, valid until the next
 * step; NULL where there is no such row. */
const float *fp_session_logits(const fp_session *session, size_t index);

/* ---- Sampling ---------------------------------------------------------------------------------------------------- */

typedef struct fp_sampling {
  float temperature; /* 0: the likeliest token */
  int32_t top_k;     /* only the k likeliest; 0: off */
  float top_p;       /* only the likeliest that have probability p together; 1: off */
  float min_p;       /* only those at least p times as likely as the likeliest; 0: off */
  uint64_t seed;
} fp_sampling;

typedef struct fp_sampler fp_sampler;

int32_t fp_sampler_create(const fp_sampling *sampling, fp_sampler **sampler, fp_error *error);
void fp_sampler_destroy(fp_sampler *sampler);
/* A token by `count` logits. The same logits, options and `position` choose the same token everywhere; give the length
 * of the sequence as position. -1 where there is no sampler or no logit. */
int32_t fp_sampler_choose(fp_sampler *sampler, const float *logits, size_t count, int64_t position);

#ifdef __cplusplus
}
#endif
#endif
