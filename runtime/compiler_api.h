/* The C interface of libfreeport_compiler.so, which the command line loads for compiling verbs. */
#ifndef FREEPORT_RUNTIME_COMPILER_API_H
#define FREEPORT_RUNTIME_COMPILER_API_H

#include "runtime/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fp_compile_options {
  const char *checkpoint;   /* folder, or GGUF file */
  const char *output;       /* file; not used with stop_after */
  const char *weights;      /* block format: q4, q8, f16, bf16, f32; keep: each matrix as it is stored; "": keep for
                             * GGUF files, q4 for folders */
  const char *numerics;     /* portable: the same bits on every device; fast: a device may fuse and approximate */
  const char *cache_type_k; /* q8: keys of attention are kept in that block format; "": as values are */
  const char *targets;      /* backends, or BACKEND:PREFIX with the profiles that begin so, separated by commas;
                               the reference is always there */
  const char *dump_stages;  /* folder for 1-graph.mlir 2-kernel.mlir 3-launch.mlir, or NULL */
  const char *stop_after;   /* graph, kernel or launch, or NULL */
  /* Told what is being done and, while weights are packed, bytes done and in all (else 0); returns 0 to cancel. May be
   * NULL. */
  int32_t (*progress)(void *context, const char *what, uint64_t done, uint64_t total);
  void *progress_context;
} fp_compile_options;

/* Compiles a checkpoint to a package. Returns 0, or an fp_code with `error` filled; then no output exists. */
int32_t fp_compile(const fp_compile_options *options, fp_error *error);
typedef int32_t (*fp_compile_function)(const fp_compile_options *options, fp_error *error);

#ifdef __cplusplus
}
#endif
#endif
