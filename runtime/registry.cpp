// Expands Backends.inc into the table of devices. Each backend's runtime half defines freeport_NAME_device().
#include "runtime/registry.h"

#include <vector>

#define FREEPORT_BACKEND(name) extern "C" const fp_device_api *freeport_##name##_device(void);
#include "backends/Backends.inc"
#undef FREEPORT_BACKEND

namespace freeport {

std::span<const fp_device_api *const> device_apis() {
  static const std::vector<const fp_device_api *> apis = {
#define FREEPORT_BACKEND(name) freeport_##name##_device(),
#include "backends/Backends.inc"
#undef FREEPORT_BACKEND
  };
  return apis;
}

const fp_device_api *find_device_api(std::string_view name) {
  for (const fp_device_api *api : device_apis())
    if (name == api->name)
      return api;
  return nullptr;
}

} // namespace freeport
