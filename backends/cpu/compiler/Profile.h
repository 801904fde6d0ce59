// What a processor must offer to run an executable: data that the lowering and LLVM read and that becomes the
// executable's conditions. A package carries one executable for each profile, from the least demanding to the best of
// each architecture.
#pragma once

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>

namespace freeport::cpu {

enum class Architecture { x86_64, aarch64 };

/// The instruction that the products of weights and activations of int8 go through.
enum class ByteProducts {
  pmaddubsw, ///< x86-64: products of unsigned and signed bytes, two added to an i16
  vpdpbusd,  ///< x86-64: four products of unsigned and signed bytes added to an i32
  smlal,     ///< aarch64: products of signed bytes, each added to an i16
  sdot,      ///< aarch64: four products of signed bytes added to an i32
  smmla,     ///< aarch64: two rows of eight signed bytes times two tokens, added to 2x2 of i32; has sdot as well
};

struct Profile {
  llvm::StringRef name;
  Architecture architecture;
  llvm::StringRef processor, features; ///< as LLVM calls them
  llvm::ArrayRef<llvm::StringRef> conditions;
  ByteProducts products;
  int64_t productLanes; ///< i32 that a register holds where `products` are added to them
};

/// From baseline to best, one architecture after the other.
llvm::ArrayRef<Profile> profiles();

/// The profile called `name`, or null.
const Profile *findProfile(llvm::StringRef name);

} // namespace freeport::cpu
