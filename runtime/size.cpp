// One walk over the instructions serves both duties: `verify_size` walks the stack's depth only, since values are not
// known before a step, and `evaluate_size` computes with overflow checks.
#include "runtime/size.h"

#include "runtime/package_generated.h"

#include <algorithm>
#include <string>

namespace freeport {
namespace {

using package::SizeOpcode;

bool compute(SizeOpcode opcode, int64_t left, int64_t right, int64_t &result) {
  switch (opcode) {
  case SizeOpcode::add:
    return !__builtin_add_overflow(left, right, &result);
  case SizeOpcode::multiply:
    return !__builtin_mul_overflow(left, right, &result);
  case SizeOpcode::ceil_divide:
    if (right <= 0)
      return false;
    result = left / right + (left % right > 0);
    return true;
  case SizeOpcode::floor_divide:
    if (right <= 0)
      return false;
    result = left / right - (left % right < 0);
    return true;
  case SizeOpcode::maximum:
    result = std::max(left, right);
    return true;
  case SizeOpcode::minimum:
    result = std::min(left, right);
    return true;
  default:
    return false;
  }
}

Status corrupt(std::string what) { return Status(Code::kCorrupt, "size expression: " + std::move(what)); }

/// Checks instruction `at` against the stack's depth before it, and updates the depth.
Status step(const fp_size &size, size_t at, size_t symbol_count, size_t &depth) {
  const fp_size_instruction &instruction = size.code[at];
  if (instruction.opcode < int(SizeOpcode::MIN) || instruction.opcode > int(SizeOpcode::MAX))
    return corrupt("expects an opcode up to " + std::to_string(int(SizeOpcode::MAX)) + ", got " +
                   std::to_string(instruction.opcode));
  const auto opcode = SizeOpcode(instruction.opcode);
  if (opcode == SizeOpcode::symbol && (instruction.value < 0 || uint64_t(instruction.value) >= symbol_count))
    return corrupt("expects a symbol below " + std::to_string(symbol_count) + ", got " +
                   std::to_string(instruction.value));
  if (opcode == SizeOpcode::constant || opcode == SizeOpcode::symbol)
    return ++depth <= kSizeStack ? Status() : corrupt("expects at most " + std::to_string(kSizeStack) + " operands");
  if (depth < 2)
    return corrupt("expects two operands before an operation, got " + std::to_string(depth));
  --depth;
  return Status();
}

Status leaves_one(size_t depth) {
  return depth == 1 ? Status() : corrupt("expects one value at its end, got " + std::to_string(depth));
}

} // namespace

Status verify_size(const fp_size &size, size_t symbol_count) {
  if (!size.code)
    return Status();
  size_t depth = 0;
  for (size_t i = 0; i < size.length; ++i)
    FP_RETURN_IF_ERROR(step(size, i, symbol_count, depth));
  return leaves_one(depth);
}

Result<int64_t> evaluate_size(const fp_size &size, std::span<const int64_t> symbols) {
  if (!size.code)
    return int64_t(0);
  int64_t stack[kSizeStack];
  size_t depth = 0;
  for (size_t i = 0; i < size.length; ++i) {
    FP_RETURN_IF_ERROR(step(size, i, symbols.size(), depth));
    const auto opcode = SizeOpcode(size.code[i].opcode);
    if (opcode == SizeOpcode::constant)
      stack[depth - 1] = size.code[i].value;
    else if (opcode == SizeOpcode::symbol)
      stack[depth - 1] = symbols[size_t(size.code[i].value)];
    else if (!compute(opcode, stack[depth - 1], stack[depth], stack[depth - 1]))
      return Status(Code::kOutOfRange, "size expression: expects values of 64 bits and positive divisors");
  }
  FP_RETURN_IF_ERROR(leaves_one(depth));
  return stack[0];
}

} // namespace freeport
