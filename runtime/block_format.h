// The block formats of packed weights as a reader of packages sees them: sizes, and values for people who look inside.
// The layout is docs/package-format.md's. No kernel uses this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace freeport {

enum class BlockFormat { f32, f16, bf16, q8, q4, q5, q4_k, q6_k };

/// Rows and inputs of a record.
constexpr uint64_t kBlock = 32;

std::optional<BlockFormat> find_block_format(std::string_view name);

/// Bytes of a record of 32 rows x 32 inputs.
uint64_t record_bytes(BlockFormat format);

/// Bytes of a packed matrix [rows, inputs], partial blocks padded; nullopt where 64 bits do not hold them.
std::optional<uint64_t> matrix_bytes(BlockFormat format, uint64_t rows, uint64_t inputs);

/// Row `row` of the packed matrix `records` to f32: `out` has as many elements as the matrix has inputs.
void unpack_row(BlockFormat format, std::span<const std::byte> records, uint64_t row, std::span<float> out);

} // namespace freeport
