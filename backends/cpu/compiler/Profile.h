// What a processor must offer to run an executable: data that the lowering and LLVM read and that becomes the
// executable's conditions. A package carries one executable for each profile, from the least demanding to the best.
#pragma once

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>

namespace freeport::cpu {

struct Profile {
  llvm::StringRef name;
  llvm::StringRef processor, features; ///< as LLVM calls them
  llvm::ArrayRef<llvm::StringRef> conditions;
  /// Rows that one register of 32-bit sums holds where vpdpbusd adds products of four bytes to them; 0: no such
  /// instruction.
  int64_t productLanes = 0;
};

/// From baseline to best.
llvm::ArrayRef<Profile> profiles();

/// The profile called `name`, or null.
const Profile *findProfile(llvm::StringRef name);

} // namespace freeport::cpu
