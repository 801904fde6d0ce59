// How the C functions of the compiler library report an llvm::Error.
#pragma once

#include "runtime/compiler_api.h"
#include "runtime/status.h"

#include "llvm/Support/Error.h"

#include <cstring>

namespace freeport {

/// Fills `error` and returns its code: kCancelled for the message "cancelled", else kInvalidArgument.
inline int32_t fillError(llvm::Error failure, fp_error *error) {
  std::string message = llvm::toString(std::move(failure));
  error->code = static_cast<int32_t>(message == "cancelled" ? Code::kCancelled : Code::kInvalidArgument);
  std::strncpy(error->message, message.c_str(), sizeof(error->message) - 1);
  error->message[sizeof(error->message) - 1] = 0;
  return error->code;
}

} // namespace freeport
