/* The run-time contract of a backend: a C struct of functions that a device offers, with a size and an ABI version, so
 * that a plug-in may be older or newer than the runtime. Every function but `open` is called by one thread at a time
 * per device; a function that can fail returns 0 or an fp_code and fills `error`. */
#ifndef FREEPORT_RUNTIME_DEVICE_H
#define FREEPORT_RUNTIME_DEVICE_H

#include "runtime/freeport.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FP_DEVICE_ABI_VERSION 2

/* A size expression: postfix over 64-bit integers (package.fbs, SizeInstruction). */
typedef struct fp_size_instruction {
  int32_t opcode; /* SizeOpcode of package.fbs */
  int64_t value;
} fp_size_instruction;
typedef struct fp_size {
  const fp_size_instruction *code; /* NULL: 0 */
  size_t length;
} fp_size;

typedef struct fp_device fp_device;         /* an open device */
typedef struct fp_memory fp_memory;         /* a run of device memory */
typedef struct fp_executable fp_executable; /* loaded kernels */
typedef struct fp_recording fp_recording;   /* a recorded launch program */

typedef struct fp_device_options {
  const char *selector; /* text behind "NAME:" in --device, or "" */
  int32_t threads;      /* host threads that a replay may use; 0: the device's choice */
  int32_t timings;      /* nonzero: replays measure their dispatches, for `timings` */
} fp_device_options;

/* A piece of one dispatch of a replay, and when it ran. */
typedef struct fp_timing {
  uint32_t dispatch;   /* number among the recording's dispatches */
  uint32_t thread;     /* of the device; 0 where it has none */
  uint64_t begin, end; /* nanoseconds since the replay began */
} fp_timing;

typedef struct fp_device_description {
  char name[128];         /* of the hardware */
  char driver[128];       /* name and version; "": none */
  char api_version[16];   /* of the interface, e.g. "1.3.230"; "": none */
  char uuid[40];          /* "": none */
  char reason[256];       /* why this device cannot be used; "": it can */
  uint64_t memory_bytes;  /* 0: unknown */
  uint64_t maximum_bytes; /* of one memory; 0: no limit but memory_bytes */
  int32_t host_memory;    /* nonzero: device memory is host memory, `map` always works */
  int32_t threads;        /* host threads that a replay uses */
} fp_device_description;

/* A kernel's memory operand: `offset` bytes into `memory`. */
typedef struct fp_binding {
  fp_memory *memory;
  uint64_t memory_offset; /* fixed part, e.g. a parameter's place in the weights */
  fp_size offset;         /* part that depends on the sizes */
  fp_size end;            /* no access lies at or behind this byte of `memory`; NULL: the memory's end */
} fp_binding;

typedef enum fp_command_kind { FP_COMMAND_DISPATCH = 0, FP_COMMAND_BARRIER = 1 } fp_command_kind;

typedef struct fp_command {
  int32_t kind;
  uint32_t kernel; /* index into the executable's kernels */
  fp_size grid[3]; /* unused dimensions: the constant 1 */
  const fp_binding *bindings;
  size_t binding_count;
  const fp_size *scalars; /* 64-bit signed index arguments */
  size_t scalar_count;
  const char *operation; /* for profiles; may be NULL */
} fp_command;

typedef struct fp_device_api {
  uint32_t size;        /* sizeof(fp_device_api) of the provider */
  uint32_t abi_version; /* FP_DEVICE_ABI_VERSION of the provider */
  const char *name;     /* backend name, as in packages and --device */

  /* Describes the device that the selector "INDEX" opens; FP_NOT_FOUND behind the last one. What exists but cannot be
   * used has a `reason`; a backend that cannot even look describes that as its first device. Opens nothing. */
  int32_t (*enumerate)(uint32_t index, fp_device_description *description, fp_error *error);
  /* Whether the executable's target and conditions hold here: NULL, or the reason why not, valid until the next call
   * for this device. */
  const char *(*rejects)(fp_device *device, const char *target, const char *const *conditions, size_t count);
  int32_t (*open)(const fp_device_options *options, fp_device **device, fp_error *error);
  void (*close)(fp_device *device);
  void (*describe)(fp_device *device, fp_device_description *description);

  int32_t (*allocate)(fp_device *device, uint64_t bytes, fp_memory **memory,
                      fp_error *error); /* zeroed, 4 KiB-aligned */
  /* Optional (NULL): uses host memory in place; `data` outlives the memory and is only read. FP_UNSUPPORTED where this
   * device cannot or should not: allocate and write then. */
  int32_t (*import_host)(fp_device *device, const void *data, uint64_t bytes, fp_memory **memory, fp_error *error);
  void (*release)(fp_device *device, fp_memory *memory);
  void *(*map)(fp_device *device, fp_memory *memory); /* host address, or NULL where the host cannot see it */
  int32_t (*write)(fp_device *device, fp_memory *to, uint64_t offset, const void *from, uint64_t bytes,
                   fp_error *error);
  int32_t (*read)(fp_device *device, void *to, fp_memory *from, uint64_t offset, uint64_t bytes, fp_error *error);
  int32_t (*copy)(fp_device *device, fp_memory *to, uint64_t to_offset, fp_memory *from, uint64_t from_offset,
                  uint64_t bytes, fp_error *error);

  /* `content` outlives the executable. kernel_names[i] becomes kernel i. */
  int32_t (*load)(fp_device *device, const void *content, uint64_t bytes, uint32_t version,
                  const char *const *kernel_names, size_t kernel_count, fp_executable **executable, fp_error *error);
  void (*unload)(fp_device *device, fp_executable *executable);

  /* Records a launch program once (commands are copied, expressions and names must outlive the recording); `replay`
   * runs it with values for the symbols and returns when all of it is done. No allocation in `replay`. */
  int32_t (*record)(fp_device *device, fp_executable *executable, const fp_command *commands, size_t count,
                    fp_recording **recording, fp_error *error);
  int32_t (*replay)(fp_device *device, fp_recording *recording, const int64_t *symbols, size_t symbol_count,
                    fp_error *error);
  void (*erase)(fp_device *device, fp_recording *recording);
  /* Optional (NULL): the pieces of the recording's last replay, by dispatch, at most `capacity` of them; `count` is how
   * many there are. FP_UNSUPPORTED unless the device was opened with `timings`. */
  int32_t (*timings)(fp_device *device, fp_recording *recording, fp_timing *timings, size_t capacity, size_t *count,
                     fp_error *error);
} fp_device_api;

#ifdef __cplusplus
}
#endif
#endif
