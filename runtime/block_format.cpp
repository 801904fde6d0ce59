// Sizes and values of block_format.h. Records are read by copies, since nothing says how a file's bytes are aligned.
#include "runtime/block_format.h"

#include <cstring>

namespace freeport {
namespace {

template <typename T> T read(const std::byte *from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float from_half(uint16_t half) {
  const uint32_t sign = uint32_t(half >> 15) << 31, exponent = half >> 10 & 31, mantissa = half & 1023;
  if (exponent == 31)
    return from_bits(sign | 0x7F800000 | mantissa << 13);
  if (exponent != 0)
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = float(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

/// A signed or unsigned byte as a float.
template <typename T> float byte_at(const std::byte *from) { return float(read<T>(from)); }

/// The value of `row` and `input` of one record.
float value_at(BlockFormat format, const std::byte *record, uint64_t row, uint64_t input) {
  auto dword = [&](uint64_t j) { return record + 4 * (kBlock * j + row); };
  switch (format) {
  case BlockFormat::f32:
    return read<float>(dword(input));
  case BlockFormat::f16:
    return from_half(read<uint16_t>(dword(input / 2) + 2 * (input % 2)));
  case BlockFormat::bf16:
    return from_bits(uint32_t(read<uint16_t>(dword(input / 2) + 2 * (input % 2))) << 16);
  case BlockFormat::q8:
    return from_half(read<uint16_t>(record + 1024 + 2 * row)) * float(read<int8_t>(dword(input / 4) + input % 4));
  default:
    break;
  }
  // The others have nibbles first, then what is above or beside them.
  const auto byte = read<uint8_t>(dword(input / 8) + input % 4);
  const int nibble = input % 8 < 4 ? byte & 15 : byte >> 4;
  switch (format) {
  case BlockFormat::q5: {
    const int high = read<uint8_t>(dword(4) + input % 4) >> input / 4 & 1;
    return from_half(read<uint16_t>(record + 640 + 2 * row)) * float((nibble | high << 4) - 16);
  }
  case BlockFormat::q4_k: {
    const float scale = byte_at<uint8_t>(record + 512 + 2 * row), minimum = byte_at<uint8_t>(record + 513 + 2 * row);
    const float step = from_half(read<uint16_t>(record + 576 + 4 * row)) * scale;
    const float least = from_half(read<uint16_t>(record + 578 + 4 * row)) * minimum;
    return step * float(nibble) - least;
  }
  case BlockFormat::q6_k: {
    const int high = read<uint8_t>(dword(4 + input / 16) + input % 4) >> 2 * (input / 4 % 4) & 3;
    const float scale = byte_at<int8_t>(record + 768 + 4 * row + input / 16);
    const float step = from_half(read<uint16_t>(record + 770 + 4 * row)) * scale;
    return step * float((nibble | high << 4) - 32);
  }
  default:
    return from_half(read<uint16_t>(record + 512 + 2 * row)) * float(nibble - 8);
  }
}

} // namespace

std::optional<BlockFormat> find_block_format(std::string_view name) {
  constexpr std::string_view names[] = {"f32", "f16", "bf16", "q8", "q4", "q5", "q4_k", "q6_k"};
  for (size_t i = 0; i < std::size(names); ++i)
    if (names[i] == name)
      return BlockFormat(i);
  return std::nullopt;
}

uint64_t record_bytes(BlockFormat format) {
  constexpr uint64_t bytes[] = {4096, 2048, 2048, 1088, 576, 704, 704, 896};
  return bytes[size_t(format)];
}

std::optional<uint64_t> matrix_bytes(BlockFormat format, uint64_t rows, uint64_t inputs) {
  uint64_t records, bytes;
  auto blocks = [](uint64_t count) { return count / kBlock + (count % kBlock != 0); };
  if (__builtin_mul_overflow(blocks(rows), blocks(inputs), &records) ||
      __builtin_mul_overflow(records, record_bytes(format), &bytes))
    return std::nullopt;
  return bytes;
}

void unpack_row(BlockFormat format, std::span<const std::byte> records, uint64_t row, std::span<float> out) {
  const uint64_t groups = (out.size() + kBlock - 1) / kBlock;
  const std::byte *block = records.data() + row / kBlock * groups * record_bytes(format);
  for (uint64_t input = 0; input < out.size(); ++input)
    out[input] = value_at(format, block + input / kBlock * record_bytes(format), row % kBlock, input % kBlock);
}

} // namespace freeport
