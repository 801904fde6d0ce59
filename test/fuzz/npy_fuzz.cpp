// Bytes as a .npy file of token ids: integers, as many as the bytes can hold, or an error that can be read. Then the
// same behind a preamble of version 1.0, so that dictionaries are reached.
#include "runtime/npy.h"

#include <cstdint>
#include <cstdlib>
#include <string>

namespace {

void check(const std::string &file) {
  auto ids = freeport::parse_npy_integers(std::as_bytes(std::span(file)), "fuzz");
  if (ids.ok() ? ids->size() * 2 > file.size() : !ids.status().message().starts_with("fuzz: "))
    std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string bytes(reinterpret_cast<const char *>(data), size);
  check(bytes);
  if (size < 2)
    return 0;
  // data[0] bytes of dictionary, the rest is the array.
  std::string preamble("\x93NUMPY\x01\x00", 8);
  preamble += bytes[0];
  preamble += '\0';
  check(preamble + bytes.substr(1));
  return 0;
}
