// The list of profiles. Sizes above 32 use the profile without subgroups: a program has 32 invocations.
#include "backends/vulkan/compiler/Profile.h"

namespace freeport::vulkan {

llvm::ArrayRef<Profile> profiles() {
  static const Profile list[] = {
      {.name = "baseline"},
      {.name = "exact", .floatControls = true},
      {.name = "dot", .storage16 = true, .integerDot = true, .floatControls = true, .sharedBytes = 32 << 10},
      {.name = "dot_subgroup8",
       .subgroup = 8,
       .storage16 = true,
       .integerDot = true,
       .floatControls = true,
       .sharedBytes = 32 << 10},
      {.name = "dot_subgroup32",
       .subgroup = 32,
       .storage16 = true,
       .integerDot = true,
       .floatControls = true,
       .sharedBytes = 32 << 10},
      {.name = "matrix16",
       .subgroup = 32,
       .storage16 = true,
       .integerDot = true,
       .floatControls = true,
       .matrixInputs = 16,
       .sharedBytes = 32 << 10},
      {.name = "matrix32",
       .subgroup = 32,
       .storage16 = true,
       .integerDot = true,
       .floatControls = true,
       .matrixInputs = 32,
       .sharedBytes = 32 << 10},
  };
  return list;
}

const Profile *findProfile(llvm::StringRef name) {
  for (const Profile &profile : profiles())
    if (profile.name == name)
      return &profile;
  return nullptr;
}

} // namespace freeport::vulkan
