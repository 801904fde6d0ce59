// Size expressions: postfix programs over 64-bit integers that give grids, offsets and lengths their values. A wrong
// one is refused when it is verified, an overflow when it is evaluated; neither can read out of bounds.
#pragma once

#include "runtime/device.h"
#include "runtime/status.h"

#include <cstdint>
#include <span>

namespace freeport {

/// Deepest stack that a size expression may need.
constexpr size_t kSizeStack = 32;

/// Whether `size` is well formed: known opcodes, symbols below `symbol_count`, one value left. kCorrupt if not.
Status verify_size(const fp_size &size, size_t symbol_count);

/// The value of `size`, which need not be verified: whatever is wrong with it is kCorrupt, and kOutOfRange where 64
/// bits do not hold a value or a divisor is not positive. Allocates only to report a failure. Thread-safe.
Result<int64_t> evaluate_size(const fp_size &size, std::span<const int64_t> symbols);

} // namespace freeport
