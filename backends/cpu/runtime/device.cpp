// The device `cpu`: kernels compiled for the host's architecture, on its memory and threads.
#include "backends/cpu/runtime/executable.h"

#include <string_view>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace freeport::cpu {
namespace {

#if defined(__x86_64__)
constexpr const char *kTargets = "x86-64-v", *kNeeded[] = {"avx2", "f16c", "bmi2", "fma"};
constexpr const char *kProcessor = "expects a processor with AVX2, F16C, BMI2 and FMA (x86-64-v3)";
constexpr const char *kOtherTarget = "expects an executable for x86-64-v3 or more";

bool offers(std::string_view condition) {
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
  return false;
}
#elif defined(__aarch64__)
constexpr const char *kTargets = "aarch64-", *kNeeded[] = {"neon"};
constexpr const char *kProcessor = "expects a processor with Advanced SIMD (NEON)";
constexpr const char *kOtherTarget = "expects an executable for aarch64";

bool offers(std::string_view condition) {
  if (condition == "neon")
    return getauxval(AT_HWCAP) & HWCAP_ASIMD;
  if (condition == "dotprod")
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
  if (condition == "i8mm")
    return getauxval(AT_HWCAP2) & HWCAP2_I8MM;
  return false;
}
#else
#error "the cpu backend has no profile for this architecture: leave it out of backends/CMakeLists.txt"
#endif

struct Traits {
  static constexpr const char *name = "cpu";

  static const char *unusable() {
    for (const char *each : kNeeded)
      if (!offers(each))
        return kProcessor;
    return nullptr;
  }

  static const char *rejects(const char *target, const char *const *conditions, size_t count) {
    if (!std::string_view(target).starts_with(kTargets))
      return kOtherTarget;
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
