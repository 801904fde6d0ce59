// Expands Backends.inc into the table of compile-time backends. Each backend's compiler half defines
// freeport::create_NAME_backend() and freeport::register_NAME_passes(), NAME as in backends/CMakeLists.txt.
#include "compiler/offload/Backend.h"

#include "llvm/ADT/StringExtras.h"

namespace freeport {

#define FREEPORT_BACKEND(name)                                                                                         \
  std::unique_ptr<Backend> create_##name##_backend();                                                                  \
  void register_##name##_passes();
#include "backends/Backends.inc"
#undef FREEPORT_BACKEND

llvm::ArrayRef<std::unique_ptr<Backend>> backends() {
  static const std::vector<std::unique_ptr<Backend>> all = [] {
    std::vector<std::unique_ptr<Backend>> list;
#define FREEPORT_BACKEND(name) list.push_back(create_##name##_backend());
#include "backends/Backends.inc"
#undef FREEPORT_BACKEND
    return list;
  }();
  return all;
}

llvm::Expected<const Backend *> findBackend(llvm::StringRef name) {
  std::vector<llvm::StringRef> names;
  for (const std::unique_ptr<Backend> &backend : backends()) {
    if (backend->name() == name)
      return backend.get();
    names.push_back(backend->name());
  }
  return llvm::createStringError("expects a target among " + llvm::join(names, ", ") + ", got '" + name.str() + "'");
}

void registerBackendPasses() {
#define FREEPORT_BACKEND(name) register_##name##_passes();
#include "backends/Backends.inc"
#undef FREEPORT_BACKEND
}

} // namespace freeport
