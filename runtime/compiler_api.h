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
  /* Told what is being done and, while weights are packed, bytes done and in all (else 0); returns 0 to cancel. Called
   * by one thread at a time, not always the caller's. May be NULL. */
  int32_t (*progress)(void *context, const char *what, uint64_t done, uint64_t total);
  void *progress_context;
} fp_compile_options;

/* Compiles a checkpoint to a package. Returns 0, or an fp_code with `error` filled; then no output exists. */
int32_t fp_compile(const fp_compile_options *options, fp_error *error);
typedef int32_t (*fp_compile_function)(const fp_compile_options *options, fp_error *error);

/* What kernels are compiled for; 0 in any of them: what the target's description, or the loader, says. */
typedef struct fp_schedule {
  int64_t few_tokens_per_tile;  /* tokens that one program works on in steps of 2 to 31 tokens */
  int64_t many_tokens_per_tile; /* in steps of more */
  int64_t prefetch_distance;    /* bytes ahead of a single token's reads of weights; -1: none */
} fp_schedule;

/* A package whose kernels are compiled again from its graph, with other schedules. */
typedef struct fp_relowering fp_relowering;

typedef struct fp_relower_options {
  const void *package;  /* the file's bytes, which freeport::Package has checked; they outlive the relowering */
  uint64_t weights_end; /* where its weights end: Package::weights */
  const char *output;   /* file */
  int32_t (*progress)(void *context, const char *what, uint64_t done, uint64_t total); /* as above */
  void *progress_context;
} fp_relower_options;

/* Copies the weights to a temporary file beside the output. Sets what the target's description says in `own`, and
 * returns null with `error` filled where it fails. Only one thread may use a relowering. */
fp_relowering *fp_relower_begin(const fp_relower_options *options, fp_schedule *own, fp_error *error);
/* Adds kernels of that schedule to the temporary file and returns its name; it is then a package that opens, and those
 * that are open already stay valid. It has code for the reference and for `target` of `backend`. Null with `error`
 * filled where it fails. */
const char *fp_relower_try(fp_relowering *relowering, const fp_schedule *schedule, const char *backend,
                           const char *target, fp_error *error);
/* Writes the output, for all targets of the package, with `note` added to the options in its provenance. No package of
 * fp_relower_try may be open any more. Returns 0, or an fp_code with `error` filled. */
int32_t fp_relower_finish(fp_relowering *relowering, const fp_schedule *schedule, const char *note, fp_error *error);
/* Frees the relowering, and removes the temporary file unless fp_relower_finish succeeded. */
void fp_relower_end(fp_relowering *relowering);

typedef fp_relowering *(*fp_relower_begin_function)(const fp_relower_options *, fp_schedule *, fp_error *);
typedef const char *(*fp_relower_try_function)(fp_relowering *, const fp_schedule *, const char *, const char *,
                                               fp_error *);
typedef int32_t (*fp_relower_finish_function)(fp_relowering *, const fp_schedule *, const char *, fp_error *);
typedef void (*fp_relower_end_function)(fp_relowering *);

#ifdef __cplusplus
}
#endif
#endif
