// libfreeport_compiler.so, which alone links MLIR: loaded only by the verbs that compile.
#pragma once

#include "runtime/status.h"

namespace freeport::cli {

/// The function of that name of runtime/compiler_api.h; kNotFound where the library or the function is missing.
Result<void *> find_compiler_function(const char *name);

/// fp_compile_options::progress with a ProgressLine as context; cancels after a signal.
int32_t show_compiler_progress(void *context, const char *what, uint64_t done, uint64_t total);

} // namespace freeport::cli
