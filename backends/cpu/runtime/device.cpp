// The device `cpu`: kernels compiled for x86-64-v3 or more, on the host's memory and threads.
#include "backends/cpu/runtime/executable.h"

#include <string_view>

namespace freeport::cpu {
namespace {

bool offers(std::string_view condition) {
#if defined(__x86_64__)
  // The builtin takes literals only.
  if (condition == "avx2")
    return __builtin_cpu_supports("avx2");
  if (condition == "f16c")
    return __builtin_cpu_supports("f16c");
  if (condition == "bmi2")
    return __builtin_cpu_supports("bmi2");
  if (condition == "fma")
    return __builtin_cpu_supports("fma");
  if (condition == "avxvnni")
    return __builtin_cpu_supports("avxvnni");
  if (condition == "avx512f")
    return __builtin_cpu_supports("avx512f");
  if (condition == "avx512bw")
    return __builtin_cpu_supports("avx512bw");
  if (condition == "avx512cd")
    return __builtin_cpu_supports("avx512cd");
  if (condition == "avx512dq")
    return __builtin_cpu_supports("avx512dq");
  if (condition == "avx512vl")
    return __builtin_cpu_supports("avx512vl");
  if (condition == "avx512vnni")
    return __builtin_cpu_supports("avx512vnni");
#endif
  return false;
}

constexpr const char *kProcessor = "expects a processor with AVX2, F16C, BMI2 and FMA (x86-64-v3)";

struct Traits {
  static constexpr const char *name = "cpu";

  static const char *unusable() {
    for (const char *each : {"avx2", "f16c", "bmi2", "fma"})
      if (!offers(each))
        return kProcessor;
    return nullptr;
  }

  static const char *rejects(const char *target, const char *const *conditions, size_t count) {
    if (!std::string_view(target).starts_with("x86-64-v"))
      return "expects an executable for x86-64-v3 or more";
    if (const char *reason = unusable())
      return reason;
    for (size_t number = 0; number < count; ++number)
      if (!offers(conditions[number]))
        return "expects instructions that this processor does not offer";
    return nullptr;
  }

  static Result<std::unique_ptr<HostExecutable>> load(std::span<const std::byte> content, uint32_t version,
                                                      std::span<const char *const> kernel_names) {
    return load_executable(content, version, kernel_names);
  }
};

} // namespace
} // namespace freeport::cpu

extern "C" const fp_device_api *freeport_cpu_device(void) { return freeport::host_device_api<freeport::cpu::Traits>(); }
