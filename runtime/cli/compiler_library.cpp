// Loading of compiler_library.h.
#include "runtime/cli/compiler_library.h"
#include "runtime/cli/progress.h"
#include "runtime/cli/verbs.h"

#include <fmt/format.h>

#include <dlfcn.h>
#include <filesystem>

namespace freeport::cli {

Result<void *> find_compiler_function(const char *name) {
  std::error_code code;
  const auto library =
      std::filesystem::read_symlink("/proc/self/exe", code).parent_path().parent_path() / "lib/libfreeport_compiler.so";
  void *handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle)
    return Status(Code::kNotFound, fmt::format("cannot load the compiler: {}", ::dlerror()));
  void *function = ::dlsym(handle, name);
  if (!function)
    return Status(Code::kNotFound, fmt::format("{} has no {}: it is of another version", library.string(), name));
  return function;
}

int32_t show_compiler_progress(void *context, const char *what, uint64_t done, uint64_t total) {
  auto &line = *static_cast<ProgressLine *>(context);
  if (total)
    line.show_bytes(what, done, total);
  else
    line.show(what, /*always=*/true);
  return !interrupted;
}

} // namespace freeport::cli
