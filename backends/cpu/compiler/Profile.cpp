#include "backends/cpu/compiler/Profile.h"

#include "llvm/ADT/STLExtras.h"

namespace freeport::cpu {

using llvm::StringRef;

llvm::ArrayRef<Profile> profiles() {
  static constexpr StringRef v3[] = {"avx2", "f16c", "bmi2", "fma"};
  static constexpr StringRef avxVnni[] = {"avx2", "f16c", "bmi2", "fma", "avxvnni"};
  static constexpr StringRef v4[] = {"avx2",     "f16c",     "bmi2",     "fma",      "avx512f",
                                     "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vnni"};
  static const Profile all[] = {
      {"x86-64-v3", "x86-64-v3", "", v3, 0},
      {"x86-64-v3-avxvnni", "x86-64-v3", "+avxvnni", avxVnni, 8},
      {"x86-64-v4-avx512vnni", "x86-64-v4", "+avx512vnni", v4, 16},
  };
  return all;
}

const Profile *findProfile(StringRef name) {
  auto *found = llvm::find_if(profiles(), [&](const Profile &profile) { return profile.name == name; });
  return found == profiles().end() ? nullptr : found;
}

} // namespace freeport::cpu
