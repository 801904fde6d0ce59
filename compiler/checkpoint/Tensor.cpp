#include "compiler/checkpoint/Tensor.h"

#include "llvm/Support/ErrorHandling.h"

namespace freeport::checkpoint {

namespace {
struct Description {
  llvm::StringLiteral name;
  Block block;
};
} // namespace

static const Description &describe(DataType type) {
  static constexpr Description kTypes[] = {
      {"F64", {1, 8}},      {"F32", {1, 4}},     {"F16", {1, 2}},    {"BF16", {1, 2}},   {"F8_E4M3", {1, 1}},
      {"F8_E5M2", {1, 1}},  {"I64", {1, 8}},     {"I32", {1, 4}},    {"I16", {1, 2}},    {"I8", {1, 1}},
      {"U8", {1, 1}},       {"BOOL", {1, 1}},    {"Q4_0", {32, 18}}, {"Q5_0", {32, 22}}, {"Q8_0", {32, 34}},
      {"Q4_K", {256, 144}}, {"Q6_K", {256, 210}}};
  static_assert(std::size(kTypes) == static_cast<size_t>(DataType::Q6_K) + 1);
  return kTypes[static_cast<size_t>(type)];
}

Block blockOf(DataType type) { return describe(type).block; }

llvm::StringRef name(DataType type) { return describe(type).name; }

} // namespace freeport::checkpoint
