#include "backends/cpu/compiler/Profile.h"

#include "llvm/ADT/STLExtras.h"

namespace freeport::cpu {

using llvm::StringRef;

llvm::ArrayRef<Profile> profiles() {
  static constexpr StringRef v3[] = {"avx2", "f16c", "bmi2", "fma"};
  static constexpr StringRef avxVnni[] = {"avx2", "f16c", "bmi2", "fma", "avxvnni"};
  static constexpr StringRef v4[] = {"avx2",     "f16c",     "bmi2",     "fma",      "avx512f",
                                     "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vnni"};
  static constexpr StringRef neon[] = {"neon"};
  static constexpr StringRef dotprod[] = {"neon", "dotprod"};
  static constexpr StringRef i8mm[] = {"neon", "dotprod", "i8mm"};
  constexpr Architecture x86 = Architecture::x86_64, arm = Architecture::aarch64;
  static const Profile all[] = {
      {"x86-64-v3", x86, "x86-64-v3", "", v3, ByteProducts::pmaddubsw, 8},
      {"x86-64-v3-avxvnni", x86, "x86-64-v3", "+avxvnni", avxVnni, ByteProducts::vpdpbusd, 8},
      {"x86-64-v4-avx512vnni", x86, "x86-64-v4", "+avx512vnni", v4, ByteProducts::vpdpbusd, 16},
      {"aarch64-neon", arm, "generic", "+neon", neon, ByteProducts::smlal, 4},
      {"aarch64-dotprod", arm, "generic", "+neon,+dotprod", dotprod, ByteProducts::sdot, 4},
      {"aarch64-i8mm", arm, "generic", "+neon,+dotprod,+i8mm", i8mm, ByteProducts::smmla, 4},
  };
  return all;
}

const Profile *findProfile(StringRef name) {
  auto *found = llvm::find_if(profiles(), [&](const Profile &profile) { return profile.name == name; });
  return found == profiles().end() ? nullptr : found;
}

} // namespace freeport::cpu
