// Instructions on packed weights and activations: each decodes one record of 32 rows x 32 inputs, then computes in the
// order of KernelOps.td. Rows, groups and entries outside the weights, and records that do not lie wholly inside
// memory, count as zeros and are not written; no address is computed from a weight.
#include "backends/reference/runtime/half.h"
#include "backends/reference/runtime/program.h"

#include <algorithm>

namespace freeport::reference {
namespace {

using bytecode::BlockFormat;
using bytecode::Opcode;

constexpr int64_t kQuantum = 32;

template <typename T> T read(const std::byte *from) {
  T value;
  memcpy(&value, from, sizeof(T));
  return value;
}

/// Where record `number` begins in `bytes` bytes of memory, or null if it does not lie wholly inside.
std::byte *record_in(std::byte *base, int64_t bytes, int64_t number, int64_t record_bytes) {
  int64_t offset;
  if (number < 0 || __builtin_mul_overflow(number, record_bytes, &offset) || offset > bytes - record_bytes)
    return nullptr;
  return base + offset;
}

/// The record of token `t` of a span_dot, or null.
const std::byte *token_of(const Step &step, const Frame &frame, const Memory &activations, uint32_t t) {
  const Extent &extent = frame.memories[step.memory[1]];
  int64_t token = *frame.at<int64_t>(frame.program->lists[step.list + step.count + t]);
  return record_in(extent.base, extent.readable, token, activations.token_bytes);
}

/// The integer of `row` and `input` of a record of a quantised format.
int32_t code_at(const std::byte *record, BlockFormat format, int64_t row, int64_t input) {
  auto byte = [&](int64_t dword) { return static_cast<uint8_t>(record[4 * (kQuantum * dword + row) + input % 4]); };
  if (format == BlockFormat::q8)
    return static_cast<int8_t>(byte(input / 4));
  int32_t nibble = input % 8 < 4 ? byte(input / 8) & 15 : byte(input / 8) >> 4;
  switch (format) {
  case BlockFormat::q5:
    return (nibble | (byte(4) >> input / 4 & 1) << 4) - 16;
  case BlockFormat::q4_k:
    return nibble;
  case BlockFormat::q6_k:
    return (nibble | (byte(4 + input / 16) >> 2 * (input / 4 % 4) & 3) << 4) - 32;
  default:
    return nibble - 8;
  }
}

/// The weight of `row` and `input` of a record of f32, f16 or bf16.
float weight_at(const std::byte *record, BlockFormat format, int64_t row, int64_t input) {
  if (format == BlockFormat::f32)
    return read<float>(record + 4 * (kQuantum * input + row));
  auto bits = read<uint16_t>(record + 4 * (kQuantum * (input / 2) + row) + 2 * (input % 2));
  return format == BlockFormat::f16 ? from_half(bits) : from_bfloat(bits);
}

/// What stands behind a record's integers for one row. A weight is step * scales[half] * integer - least * minimum.
struct RowScale {
  float step = 0, least = 0;
  int32_t scales[2] = {1, 1}; ///< of the first and second 16 inputs
  int32_t minimum = 0;
};

RowScale scale_at(const std::byte *record, BlockFormat format, int64_t row) {
  auto half = [&](int64_t offset) { return from_half(read<uint16_t>(record + offset)); };
  RowScale scale;
  if (format == BlockFormat::q4_k) {
    scale.scales[0] = scale.scales[1] = read<uint8_t>(record + 512 + 2 * row);
    scale.minimum = read<uint8_t>(record + 513 + 2 * row);
    scale.step = half(576 + 4 * row);
    scale.least = half(578 + 4 * row);
  } else if (format == BlockFormat::q6_k) {
    for (int64_t part = 0; part < 2; ++part)
      scale.scales[part] = read<int8_t>(record + 768 + 4 * row + part);
    scale.step = half(770 + 4 * row);
  } else {
    scale.step = half((format == BlockFormat::q8 ? 1024 : format == BlockFormat::q5 ? 640 : 512) + 2 * row);
  }
  return scale;
}

/// A weight of a quantised format.
float quantized_weight_at(const std::byte *record, BlockFormat format, int64_t row, int64_t input) {
  const RowScale scale = scale_at(record, format, row);
  const float step = scale.step * static_cast<float>(scale.scales[input / 16]);
  const float value = step * static_cast<float>(code_at(record, format, row, input));
  return format == BlockFormat::q4_k ? value - scale.least * static_cast<float>(scale.minimum) : value;
}

/// Adds one group of 32 rows to the sums of each token: exact integer dots, scaled.
void add_quantized(const Step &step, Frame &frame, const Memory &weights, const std::byte *record,
                   const Memory &activations, int64_t group, float *sums) {
  int32_t codes[kQuantum][kQuantum]; // [input][row]
  RowScale scales[kQuantum];
  for (int64_t row = 0; row < kQuantum; ++row)
    scales[row] = scale_at(record, weights.format, row);
  for (int64_t input = 0; input < kQuantum; ++input)
    for (int64_t row = 0; row < kQuantum; ++row)
      codes[input][row] = code_at(record, weights.format, row, input);
  for (uint32_t t = 0; t < step.other; ++t) {
    const std::byte *values = token_of(step, frame, activations, t);
    if (!values)
      continue;
    const std::byte *behind = values + kQuantum * activations.groups + 4 * group;
    const float token_scale = read<float>(behind);
    const uint32_t token_sum = read<uint32_t>(behind + 4 * activations.groups);
    int32_t dots[2][kQuantum] = {};
    for (int64_t input = 0; input < kQuantum; ++input) {
      int32_t value = read<int8_t>(values + kQuantum * group + input);
      for (int64_t row = 0; row < kQuantum; ++row)
        dots[input / 16][row] += codes[input][row] * value;
    }
    for (int64_t row = 0; row < kQuantum; ++row) {
      const RowScale &scale = scales[row];
      const int32_t dot = scale.scales[0] * dots[0][row] + scale.scales[1] * dots[1][row];
      float value = static_cast<float>(dot) * (scale.step * token_scale);
      if (weights.format == BlockFormat::q4_k)
        value = value - static_cast<float>(static_cast<int32_t>(uint32_t(scale.minimum) * token_sum)) *
                            (scale.least * token_scale);
      sums[kQuantum * t + row] += value;
    }
  }
}

/// Adds one group of 32 rows to the sums of each token: inputs ascending, two roundings each.
void add_floats(const Step &step, Frame &frame, const Memory &weights, const std::byte *record,
                const Memory &activations, int64_t group, float *sums) {
  float values[kQuantum][kQuantum]; // [input][row]
  for (int64_t input = 0; input < kQuantum; ++input)
    for (int64_t row = 0; row < kQuantum; ++row)
      values[input][row] = weight_at(record, weights.format, row, input);
  for (uint32_t t = 0; t < step.other; ++t) {
    const std::byte *inputs = token_of(step, frame, activations, t);
    if (!inputs)
      continue;
    for (int64_t input = 0; input < kQuantum; ++input) {
      float activation = read<float>(inputs + 4 * (kQuantum * group + input));
      for (int64_t row = 0; row < kQuantum; ++row)
        sums[kQuantum * t + row] += values[input][row] * activation;
    }
  }
}

void span_dot(const Step &step, Frame &frame) {
  const Memory &weights = frame.program->memories[step.memory[0]];
  const Memory &activations = frame.program->memories[step.memory[1]];
  const Extent &memory = frame.memories[step.memory[0]];
  int64_t span = *frame.at<int64_t>(step.operands[0]);
  int64_t entry = step.operands[1] == kAbsent ? 0 : *frame.at<int64_t>(step.operands[1]);
  float *sums = frame.at<float>(step.result);
  memset(sums, 0, sizeof(float) * kQuantum * step.count * step.other);
  if (span < 0 || span >= (weights.groups + kQuantum - 1) / kQuantum || entry < 0 ||
      entry >= std::max<int64_t>(weights.entries, 1))
    return;
  for (uint32_t r = 0; r < step.count; ++r, sums += kQuantum * step.other) {
    int64_t row_block = *frame.at<int64_t>(frame.program->lists[step.list + r]);
    if (row_block < 0 || row_block >= weights.row_blocks)
      continue;
    // At most 2^60 + 2^58 (decoder.cpp): no sum overflows.
    int64_t rows = entry * weights.entry_stride + row_block * weights.groups * weights.record_bytes;
    for (int64_t group = kQuantum * span; group < std::min(kQuantum * (span + 1), weights.groups); ++group) {
      int64_t offset = rows + group * weights.record_bytes;
      if (offset > memory.readable - weights.record_bytes)
        break;
      const std::byte *record = memory.base + offset;
      if (is_quantized(weights.format))
        add_quantized(step, frame, weights, record, activations, group, sums);
      else
        add_floats(step, frame, weights, record, activations, group, sums);
    }
  }
}

void unpack(const Step &step, Frame &frame) {
  const Memory &weights = frame.program->memories[step.memory[0]];
  int64_t row = *frame.at<int64_t>(step.operands[0]), group = *frame.at<int64_t>(step.operands[1]);
  float *result = frame.at<float>(step.result);
  std::fill_n(result, kQuantum, 0.0f);
  if (row < 0 || row >= kQuantum * weights.row_blocks || group < 0 || group >= weights.groups)
    return;
  const Extent &memory = frame.memories[step.memory[0]];
  const std::byte *record =
      record_in(memory.base, memory.readable, row / kQuantum * weights.groups + group, weights.record_bytes);
  if (!record)
    return;
  int64_t lane = row % kQuantum;
  for (int64_t input = 0; input < std::min(kQuantum, weights.inputs - kQuantum * group); ++input)
    result[input] = is_quantized(weights.format) ? quantized_weight_at(record, weights.format, lane, input)
                                                 : weight_at(record, weights.format, lane, input);
}

void store_group(const Step &step, Frame &frame) {
  const Memory &activations = frame.program->memories[step.memory[0]];
  int64_t token = *frame.at<int64_t>(step.operands[1]), group = *frame.at<int64_t>(step.operands[2]);
  if (group < 0 || group >= activations.groups)
    return;
  int64_t bytes = activations.element == bytecode::ElementType::i8 ? 1 : 4;
  const Extent &memory = frame.memories[step.memory[0]];
  std::byte *record = record_in(memory.base, memory.writable, token, activations.token_bytes);
  if (!record)
    return;
  memcpy(record + kQuantum * group * bytes, frame.registers + step.operands[0], kQuantum * bytes);
  if (step.operands[3] == kAbsent)
    return;
  std::byte *scales = record + kQuantum * activations.groups;
  memcpy(scales + 4 * group, frame.registers + step.operands[3], 4);
  memcpy(scales + 4 * activations.groups + 4 * group, frame.registers + step.list, 4);
}

} // namespace

Handler block_handler(Opcode opcode) {
  switch (opcode) {
  case Opcode::span_dot:
    return span_dot;
  case Opcode::unpack:
    return unpack;
  case Opcode::store_group:
    return store_group;
  default:
    return nullptr;
  }
}

} // namespace freeport::reference
