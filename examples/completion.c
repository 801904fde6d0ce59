/* Loads a package and prints a completion: the whole life of a model in C.
 *
 *   cc -I. examples/completion.c -Lbuild/lib -lfreeport -Wl,-rpath,"$PWD/build/lib" -o completion
 *   ./completion model.port "It is a truth" 64
 */
#include "runtime/freeport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(int32_t code, const fp_error *error) {
  if (code == 0)
    return;
  fprintf(stderr, "error %d: %s\n", (int)code, error->message);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s MODEL PROMPT [TOKENS]\n", argv[0]);
    return 2;
  }
  const char *prompt = argv[2];
  long wanted = argc > 3 ? strtol(argv[3], NULL, 10) : 64;
  fp_error error;

  /* 1. A model: the package, mapped, and its code on the best device. Any number of sessions may share it. */
  fp_model *model;
  check(fp_model_open(argv[1], NULL, &model, &error), &error);
  fp_model_description description;
  fp_model_describe(model, &description);

  /* 2. The prompt as tokens, with those that begin a text. A token stands for at least a byte, or is one of a few
   * special ones. */
  size_t capacity = strlen(prompt) + 16, count;
  int32_t *tokens = malloc(capacity * sizeof *tokens);
  if (tokens == NULL)
    return 1;
  check(fp_model_tokenize(model, prompt, strlen(prompt), 1, tokens, capacity, &count, &error), &error);

  if (count == 0) {
    fprintf(stderr, "expects a prompt of at least one token\n");
    return 1;
  }

  /* 3. A session holds what sequences remember; this one has a single sequence. Feeding the prompt leaves the logits
   * behind its last token. */
  fp_session *session;
  int32_t sequence;
  check(fp_session_create(model, NULL, &session, &error), &error);
  check(fp_session_add(session, &sequence, &error), &error);
  check(fp_session_feed(session, sequence, tokens, count, &error), &error);

  /* 4. Token by token: choose one by the logits, print the text that it completes, append it. Temperature 0 takes the
   * likeliest. */
  fp_sampling sampling = {.temperature = 0, .top_p = 1};
  fp_sampler *sampler;
  fp_text_stream *stream;
  check(fp_sampler_create(&sampling, &sampler, &error), &error);
  check(fp_text_stream_create(model, 1, &stream, &error), &error);
  for (long i = 0; i < wanted; ++i) {
    int32_t token = fp_sampler_choose(sampler, fp_session_logits(session, 0), (size_t)description.vocabulary_size,
                                      fp_session_length(session, sequence));
    if (fp_model_is_end_token(model, token))
      break;
    fputs(fp_text_stream_push(stream, token), stdout);
    fflush(stdout);
    fp_row row = {token, sequence, 1};
    check(fp_session_step(session, &row, 1, &error), &error);
  }
  printf("%s\n", fp_text_stream_finish(stream));

  fp_text_stream_destroy(stream);
  fp_sampler_destroy(sampler);
  fp_session_destroy(session);
  fp_model_close(model);
  free(tokens);
  return 0;
}
