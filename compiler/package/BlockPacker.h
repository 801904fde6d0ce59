// Packs rows of floats into records of 32 rows x 32 inputs (dialects/kernel/KernelOps.td, WeightsType). The same input
// gives the same bytes on every machine: sums run in a fixed order and nothing is contracted.
#pragma once

#include "compiler/checkpoint/Tensor.h"
#include "dialects/kernel/Kernel.h"

#include <optional>

namespace freeport {

/// Packs one row block: `rows` holds 32 rows of `stride` floats, of which the first `inputs` count and the rest, up to
/// a multiple of 32, are zero. Writes ceil(inputs / 32) records to `out`.
void packRowBlock(kernel::BlockFormat format, const float *rows, int64_t stride, int64_t inputs, uint8_t *out);

/// The block format whose records hold the very values of a checkpoint's dtype.
std::optional<kernel::BlockFormat> nativeFormat(checkpoint::DataType type);

/// The same as `packRowBlock` from `rows` (at most 32) rows of `rowBytes` bytes of blocks, which are only moved.
void moveRowBlock(checkpoint::DataType type, const uint8_t *source, int64_t rowBytes, int64_t rows, int64_t inputs,
                  uint8_t *out);

/// Widens `count` elements of a checkpoint's dtype (F32, F16, BF16 or quantised, whole blocks) to floats.
void widen(checkpoint::DataType type, const uint8_t *source, int64_t count, float *target);

/// Conversions to nearest even; f16 saturates at ±65504.
uint16_t toHalf(float value);
float fromHalf(uint16_t bits);
uint16_t toBrain(float value);

} // namespace freeport
