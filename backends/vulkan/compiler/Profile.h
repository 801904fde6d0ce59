// What a Vulkan device must offer to run an executable: data that the lowering reads and that becomes the executable's
// conditions. A package carries one executable for each profile, from the one that any device runs to the best.
#pragma once

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>

namespace freeport::vulkan {

struct Profile {
  llvm::StringRef name;
  int64_t subgroup = 0;    ///< required subgroup size, 4 to 32, for shuffles; 0: lanes meet in shared memory only
  bool storage16 = false;  ///< 16-bit loads and stores; else words and bytes
  bool integerDot = false; ///< packed 4x8 dot products; else bytes are multiplied one by one
  /// The execution modes that fix the rounding and keep the sign of zero; without them Vulkan promises neither.
  bool floatControls = false;
  /// K of cooperative matrices of signed bytes, 16 x K by K x 16, with a subgroup of 32; 0: none.
  int64_t matrixInputs = 0;
  int64_t sharedBytes = 16 << 10;
  int64_t range = int64_t(1) << 27; ///< bytes that one binding may show; the least that Vulkan guarantees
};

/// From baseline to best.
llvm::ArrayRef<Profile> profiles();

/// The profile called `name`, or null.
const Profile *findProfile(llvm::StringRef name);

} // namespace freeport::vulkan
