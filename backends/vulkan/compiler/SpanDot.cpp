// Ops on packed weights. A lane is a row of a block: the words of a record lie lane beside lane, the activations are
// the same for all lanes. Integer dots are exact whether the device has the instruction or not.
#include "backends/vulkan/compiler/Machine.h"

using namespace mlir;

namespace freeport::vulkan {
namespace {

using kernel::BlockFormat;
using kernel::kQuantum;

int64_t inputsPerWord(BlockFormat format) {
  return format == BlockFormat::f32 ? 1 : format == BlockFormat::q8 ? 4 : kernel::isQuantized(format) ? 8 : 2;
}

/// Rows and columns of the matrices of dots.
constexpr int64_t kMatrixRows = 16, kMatrixTokens = 16;

/// Where the f16 scales of q4, q5 and q8 begin in a record.
int64_t scalesAt(BlockFormat format) {
  return format == BlockFormat::q8 ? 1024 : format == BlockFormat::q5 ? 640 : 512;
}

/// Bits above the nibbles.
int64_t bitsAbove(BlockFormat format) { return format == BlockFormat::q5 ? 1 : format == BlockFormat::q6_k ? 2 : 0; }

/// What is to be subtracted from a code for its value.
int64_t zeroOf(BlockFormat format) {
  return format == BlockFormat::q4 ? 8 : format == BlockFormat::q5 ? 16 : format == BlockFormat::q6_k ? 32 : 0;
}

class SpanDotLowering {
public:
  SpanDotLowering(Machine &m, kernel::SpanDotOp op, const PackedWeights &weights, const Memory &activations,
                  const Memory &matrices, function_ref<Value(Value)> scalar)
      : m(m), op(op), weights(weights), activations(activations), matrices(matrices), scalar(scalar),
        format(weights.type.getFormat()), activationType(op.getActivations().getType()) {}

  SmallVector<Value> lower() {
    lane = m.lane();
    for (Value block : op.getRowBlocks())
      rows.push_back(firstRecord(scalar(block)));
    for (Value token : op.getTokens())
      tokens.push_back(m.multiply(scalar(token), m.i32(activationType.getTokenBytes())));
    Value first = m.multiply(scalar(op.getSpan()), m.i32(kQuantum)), groups = m.i32(weights.type.getGroups());
    Value last = m.add(first, m.i32(kQuantum));
    last = m.select(m.less(last, groups), last, groups);
    bool multiplies = usesMatrices(m.profile, op);
    if (multiplies)
      placeTokens();
    SmallVector<Value> zeros(rows.size() * tokens.size(), m.zero());
    return m.loop(first, last, m.i32(1), zeros, [&](Value group, ValueRange sums) {
      if (multiplies)
        return addMatrices(group, sums);
      return weights.type.isQuantized() ? addQuantized(group, sums) : addFloats(group, sums);
    });
  }

private:
  /// Where the records of a row block begin.
  Address firstRecord(Value block) {
    int64_t blockBytes = weights.type.getGroups() * weights.type.getRecordBytes();
    Value unit = op.getEntry() ? scalar(op.getEntry()) : block, piece;
    if (weights.memory.pieces > 1) {
      piece = m.create<arith::DivSIOp>(unit, m.i32(weights.unitsPerPiece));
      unit = m.subtract(unit, m.multiply(piece, m.i32(weights.unitsPerPiece)));
    }
    Value bytes = m.multiply(unit, m.i32(op.getEntry() ? weights.type.getEntryStride() : blockBytes));
    if (op.getEntry())
      bytes = m.add(bytes, m.multiply(block, m.i32(blockBytes)));
    return {piece, bytes};
  }

  Value weightWord(const Address &record, Value offset, int64_t constant) {
    Value bytes = m.add(m.add(record.bytes, offset), m.add(m.multiply(lane, m.i32(4)), m.i32(constant)));
    return m.loadWord(weights.memory, {record.piece, bytes});
  }
  Value activationWord(Value token, Value offset, int64_t constant) {
    return m.loadWord(activations, {Value(), m.add(m.add(token, offset), m.i32(constant))});
  }

  //===--------------------------------------------------------------------===//
  // Quantised: a group's exact dot, then one product of scales, one product, one sum
  //===--------------------------------------------------------------------===//

  struct Scale {
    Value scale;
    Value sum;  ///< of the bytes, where needed
    Value bias; ///< of q4 and q5: their codes stay unsigned, which adds 8 or 16 times the sum of the bytes
  };
  SmallVector<Scale> tokenScales(Value group) {
    Value wordOffset = m.multiply(group, m.i32(4));
    int64_t scalesAt = kQuantum * activationType.getGroups(), sumsAt = scalesAt + 4 * activationType.getGroups();
    SmallVector<Scale> scales;
    for (Value token : tokens) {
      Scale &scale = scales.emplace_back();
      scale.scale = m.fromBits(activationWord(token, wordOffset, scalesAt));
      if (format == BlockFormat::q8 || format == BlockFormat::q6_k)
        continue;
      scale.sum = activationWord(token, wordOffset, sumsAt);
      if (format != BlockFormat::q4_k)
        scale.bias = m.multiply(scale.sum, m.i32(-zeroOf(format)));
    }
    return scales;
  }

  /// The lane's row of a record, four inputs a word, ascending; of q4, q5 and q4_k unsigned.
  SmallVector<Value> rowCodes(const Address &row, Value recordOffset) {
    SmallVector<Value> codes;
    for (int64_t word = 0; word < kQuantum / inputsPerWord(format); ++word) {
      Value code = weightWord(row, recordOffset, 4 * kQuantum * word);
      if (format == BlockFormat::q8) {
        codes.push_back(code);
        continue;
      }
      codes.push_back(m.bitAnd(code, m.i32(0x0F0F0F0F)));
      codes.push_back(m.bitAnd(m.shiftRight(code, m.i32(4)), m.i32(0x0F0F0F0F)));
    }
    if (format == BlockFormat::q5) {
      Value above = weightWord(row, recordOffset, 512);
      for (auto [word, code] : llvm::enumerate(codes))
        code = m.bitOr(code, m.shiftLeft(m.bitAnd(m.shiftRight(above, m.i32(word)), m.i32(0x01010101)), m.i32(4)));
    } else if (format == BlockFormat::q6_k) {
      for (auto [word, code] : llvm::enumerate(codes)) {
        Value above = m.shiftRight(weightWord(row, recordOffset, 512 + 128 * (word / 4)), m.i32(2 * (word % 4)));
        code = m.bitOr(code, m.shiftLeft(m.bitAnd(above, m.i32(0x03030303)), m.i32(4)));
        // Less 32 in each byte: in six bits that turns the highest, which is then the sign of the others above it.
        code = m.bitXor(code, m.i32(0x20202020));
        Value sign = m.bitAnd(code, m.i32(0x20202020));
        code = m.bitOr(code, m.bitOr(m.shiftLeft(sign, m.i32(1)), m.shiftLeft(sign, m.i32(2))));
      }
    }
    return codes;
  }

  /// What stands behind a record's codes for the lane's row.
  struct RowScale {
    Value step, least;
    Value scales[2], minimum; ///< integers; null where the format has none
  };
  RowScale rowScale(const Address &row, Value recordOffset) {
    auto halfOfLane = [&](int64_t constant) {
      Value bytes = m.add(m.add(row.bytes, recordOffset), m.i32(constant));
      return m.loadHalf(weights.memory, {row.piece, m.add(bytes, m.multiply(lane, m.i32(2)))});
    };
    RowScale scale;
    if (format == BlockFormat::q4_k) {
      Value bytes = halfOfLane(512), steps = weightWord(row, recordOffset, 576);
      scale.scales[0] = m.bitAnd(bytes, m.i32(255));
      scale.minimum = m.bitAnd(m.shiftRight(bytes, m.i32(8)), m.i32(255));
      scale.step = m.halfToFloat(m.bitAnd(steps, m.i32(0xFFFF)));
      scale.least = m.halfToFloat(m.shiftRight(steps, m.i32(16)));
    } else if (format == BlockFormat::q6_k) {
      Value word = weightWord(row, recordOffset, 768);
      scale.scales[0] = m.signExtend(word, 8);
      scale.scales[1] = m.signExtend(m.shiftRight(word, m.i32(8)), 8);
      scale.step = m.halfToFloat(m.shiftRight(word, m.i32(16)));
    } else {
      scale.step = m.halfToFloat(halfOfLane(scalesAt(format)));
    }
    return scale;
  }

  /// `dots` of the group, or of its two halves.
  Value addGroup(Value sum, ArrayRef<Value> dots, const RowScale &row, const Scale &token) {
    Value dot = dots[0];
    if (row.scales[0])
      dot = m.multiply(row.scales[0], dot);
    if (row.scales[1])
      dot = m.add(dot, m.multiply(row.scales[1], dots[1]));
    Value value = m.multiply(m.toFloat(dot), m.multiply(row.step, token.scale));
    if (row.minimum)
      value = m.subtract(value,
                         m.multiply(m.toFloat(m.multiply(row.minimum, token.sum)), m.multiply(row.least, token.scale)));
    return m.add(sum, value);
  }

  SmallVector<Value> addQuantized(Value group, ValueRange sums) {
    Value recordOffset = m.multiply(group, m.i32(weights.type.getRecordBytes()));
    Value codeOffset = m.multiply(group, m.i32(kQuantum));
    SmallVector<Scale> scales = tokenScales(group);
    SmallVector<SmallVector<Value>> inputs;
    for (Value token : tokens) {
      SmallVector<Value> &words = inputs.emplace_back();
      for (int64_t word = 0; word < kQuantum / 4; ++word)
        words.push_back(activationWord(token, codeOffset, 4 * word));
    }
    SmallVector<Value> next;
    for (const Address &row : rows) {
      SmallVector<Value> codes = rowCodes(row, recordOffset);
      RowScale scale = rowScale(row, recordOffset);
      bool isUnsigned = format != BlockFormat::q8 && format != BlockFormat::q6_k;
      size_t perDot = scale.scales[1] ? codes.size() / 2 : codes.size();
      for (auto [token, words] : llvm::zip(scales, inputs)) {
        SmallVector<Value> dots;
        for (auto [number, code, word] : llvm::enumerate(codes, words)) {
          Value part = m.dot4(code, isUnsigned, word);
          if (number % perDot == 0)
            dots.push_back(token.bias ? m.add(token.bias, part) : part);
          else
            dots.back() = m.add(dots.back(), part);
        }
        next.push_back(addGroup(sums[next.size()], dots, scale, token));
      }
    }
    return next;
  }

  //===--------------------------------------------------------------------===//
  // Quantised, 16 tokens: cooperative matrices, 32 rows x 32 inputs by 32 inputs x 16 tokens
  //===--------------------------------------------------------------------===//

  // Local memory, in words: the rows' codes and the tokens' codes, 8 words apart by 12 against bank conflicts, 16-byte
  // aligned as matrices must be; the dots, a column of 32 rows for each token.
  static constexpr int64_t kPitch = 12, kTokensAt = kQuantum * kPitch, kDotsAt = kTokensAt + kMatrixTokens * kPitch;
  static_assert(kDotsAt + kMatrixTokens * kQuantum == kMatrixWords);

  Address localWord(Value word) { return {Value(), m.shiftLeft(word, m.i32(2))}; }

  /// The word of a token's group that each lane copies: four tokens at a time, eight words each.
  void placeTokens() {
    Value word = m.bitAnd(lane, m.i32(7)), number = m.shiftRight(lane, m.i32(3));
    for (int64_t first = 0; first < kMatrixTokens; first += 4) {
      Value token = tokens[first];
      for (int64_t other = 1; other < 4; ++other)
        token = m.select(m.equal(number, m.i32(other)), tokens[first + other], token);
      copiedTokens.push_back(m.add(token, m.shiftLeft(word, m.i32(2))));
    }
    copiedTo = m.add(m.add(m.multiply(number, m.i32(kPitch)), word), m.i32(kTokensAt));
  }

  Value matrix(int64_t rows, int64_t columns, spirv::CooperativeMatrixUseKHR use,
               spirv::CooperativeMatrixLayoutKHR layout, int64_t word) {
    auto type = spirv::CooperativeMatrixType::get(m.builder.getI8Type(), rows, columns, spirv::Scope::Subgroup, use);
    return m.create<spirv::KHRCooperativeMatrixLoadOp>(type, m.localPointer(matrices, word), layout, m.i32(kPitch),
                                                       spirv::MemoryAccessAttr());
  }

  SmallVector<Value> addMatrices(Value group, ValueRange sums) {
    using Use = spirv::CooperativeMatrixUseKHR;
    using Layout = spirv::CooperativeMatrixLayoutKHR;
    using Operands = spirv::CooperativeMatrixOperandsKHR;
    Value recordOffset = m.multiply(group, m.i32(weights.type.getRecordBytes()));
    Value codeOffset = m.multiply(group, m.i32(kQuantum));
    SmallVector<Scale> scales = tokenScales(group);
    for (auto [number, token] : llvm::enumerate(copiedTokens))
      m.storeWord(activationWord(token, codeOffset, 0), matrices,
                  localWord(m.add(copiedTo, m.i32(4 * kPitch * number))));
    auto dots = spirv::CooperativeMatrixType::get(m.i32Type(), kMatrixRows, kMatrixTokens, spirv::Scope::Subgroup,
                                                  Use::MatrixAcc);
    auto isSigned = spirv::CooperativeMatrixOperandsKHRAttr::get(
        m.builder.getContext(), Operands::ASigned | Operands::BSigned | Operands::CSigned | Operands::ResultSigned);
    int64_t inputs = m.profile.matrixInputs;
    SmallVector<Value> next;
    for (const Address &row : rows) {
      RowScale scale = rowScale(row, recordOffset);
      for (auto [number, code] : llvm::enumerate(rowCodes(row, recordOffset)))
        m.storeWord(code, matrices, localWord(m.add(m.multiply(lane, m.i32(kPitch)), m.i32(number))));
      m.barrier();
      for (int64_t first = 0; first < kQuantum; first += kMatrixRows) {
        Value dot = m.create<spirv::CompositeConstructOp>(dots, ValueRange{m.i32(0)});
        for (int64_t input = 0; input < kQuantum; input += inputs) {
          Value a = matrix(kMatrixRows, inputs, Use::MatrixA, Layout::RowMajor, first * kPitch + input / 4);
          Value b = matrix(inputs, kMatrixTokens, Use::MatrixB, Layout::ColumnMajor, kTokensAt + input / 4);
          dot = m.create<spirv::KHRCooperativeMatrixMulAddOp>(dots, a, b, dot, isSigned);
        }
        m.create<spirv::KHRCooperativeMatrixStoreOp>(m.localPointer(matrices, kDotsAt + first), dot,
                                                     Layout::ColumnMajor, m.i32(kQuantum), spirv::MemoryAccessAttr());
      }
      m.barrier();
      for (auto [number, token] : llvm::enumerate(scales)) {
        Value dot = m.loadWord(matrices, localWord(m.add(lane, m.i32(kDotsAt + kQuantum * number))));
        next.push_back(addGroup(sums[next.size()], token.bias ? m.add(dot, token.bias) : dot, scale, token));
      }
    }
    return next;
  }

  //===--------------------------------------------------------------------===//
  // Floats
  //===--------------------------------------------------------------------===//

  SmallVector<Value> addFloats(Value group, ValueRange sums) {
    int64_t perWord = inputsPerWord(format);
    Value recordOffset = m.multiply(group, m.i32(weights.type.getRecordBytes()));
    Value inputOffset = m.multiply(group, m.i32(4 * kQuantum));
    return m.loop(m.i32(0), m.i32(kQuantum / perWord), m.i32(1), sums, [&](Value word, ValueRange carried) {
      SmallVector<Value> next(carried);
      Value wordOffset = m.add(recordOffset, m.multiply(word, m.i32(4 * kQuantum)));
      Value from = m.add(inputOffset, m.multiply(word, m.i32(4 * perWord)));
      SmallVector<SmallVector<Value>> inputs;
      for (Value token : tokens) {
        SmallVector<Value> &input = inputs.emplace_back();
        for (int64_t k = 0; k < perWord; ++k)
          input.push_back(m.fromBits(activationWord(token, from, 4 * k)));
      }
      for (auto [r, row] : llvm::enumerate(rows)) {
        SmallVector<Value> values = widen(m, format, weightWord(row, wordOffset, 0));
        for (auto [t, input] : llvm::enumerate(inputs))
          for (int64_t k = 0; k < perWord; ++k) {
            Value &sum = next[r * tokens.size() + t];
            sum = m.add(sum, m.multiply(values[k], input[k]));
          }
      }
      return next;
    });
  }

public:
  /// The floats in a word of weights, inputs ascending.
  static SmallVector<Value> widen(Machine &m, BlockFormat format, Value word) {
    if (format == BlockFormat::f32)
      return {m.fromBits(word)};
    if (format == BlockFormat::bf16)
      return {m.fromBits(m.shiftLeft(word, m.i32(16))), m.fromBits(m.bitAnd(word, m.i32(-65536)))};
    return {m.halfToFloat(m.bitAnd(word, m.i32(0xFFFF))), m.halfToFloat(m.shiftRight(word, m.i32(16)))};
  }

private:
  Machine &m;
  kernel::SpanDotOp op;
  const PackedWeights &weights;
  const Memory &activations, &matrices;
  function_ref<Value(Value)> scalar;
  BlockFormat format;
  kernel::ActivationsType activationType;
  Value lane;
  SmallVector<Address> rows; ///< the first record of each row block
  SmallVector<Value> tokens; ///< where each token's record begins, in bytes
  SmallVector<Value> copiedTokens;
  Value copiedTo;
};

} // namespace

SmallVector<Value> lowerSpanDot(Machine &machine, kernel::SpanDotOp op, const PackedWeights &weights,
                                const Memory &activations, const Memory &matrices, function_ref<Value(Value)> scalar) {
  return SpanDotLowering(machine, op, weights, activations, matrices, scalar).lower();
}

bool usesMatrices(const Profile &profile, kernel::SpanDotOp op) {
  kernel::WeightsType type = op.getWeights().getType();
  return profile.matrixInputs && op.getTokens().size() == kMatrixTokens && type.isQuantized() &&
         type.getFormat() != BlockFormat::q6_k; // whose halves have scales of their own
}

Value lowerUnpack(Machine &m, const PackedWeights &weights, Value row, Value group) {
  // A lane is an input here: words lie 32 rows apart.
  BlockFormat format = weights.type.getFormat();
  int64_t perWord = inputsPerWord(format), blockBytes = weights.type.getGroups() * weights.type.getRecordBytes();
  Value lane = m.lane(), block = m.shiftRight(row, m.i32(5)), rowInBlock = m.bitAnd(row, m.i32(31)), piece;
  if (weights.memory.pieces > 1) {
    piece = m.create<arith::DivSIOp>(block, m.i32(weights.unitsPerPiece));
    block = m.subtract(block, m.multiply(piece, m.i32(weights.unitsPerPiece)));
  }
  Value record = m.add(m.multiply(block, m.i32(blockBytes)), m.multiply(group, m.i32(weights.type.getRecordBytes())));
  Value word = m.shiftRight(lane, m.i32(llvm::Log2_64(perWord)));
  Value bytes = m.add(record, m.multiply(m.add(m.multiply(word, m.i32(kQuantum)), rowInBlock), m.i32(4)));
  Value bits = m.loadWord(weights.memory, {piece, bytes}), value;
  if (!weights.type.isQuantized()) {
    SmallVector<Value> values = SpanDotLowering::widen(m, format, bits);
    value = values[0];
    if (perWord == 2)
      value = m.select(m.equal(m.bitAnd(lane, m.i32(1)), m.i32(0)), values[0], values[1]);
  } else {
    Value code;
    if (format == BlockFormat::q8) {
      code = m.signExtend(m.shiftRight(bits, m.shiftLeft(m.bitAnd(lane, m.i32(3)), m.i32(3))), 8);
    } else {
      // Input 8j + 4h + b is nibble h of byte b.
      Value shift = m.add(m.shiftLeft(m.bitAnd(lane, m.i32(3)), m.i32(3)), m.bitAnd(lane, m.i32(4)));
      code = m.bitAnd(m.shiftRight(bits, shift), m.i32(15));
      if (int64_t above = bitsAbove(format)) {
        // Of q5 bit 8b + k/4 of one dword; of q6_k bits 8b + 2(k/4 % 4) of one for each 16 inputs.
        Value byte = m.shiftLeft(m.bitAnd(lane, m.i32(3)), m.i32(3)), quad = m.shiftRight(lane, m.i32(2));
        Value dword = above == 2 ? m.shiftRight(lane, m.i32(4)) : m.i32(0);
        Value from = above == 2 ? m.shiftLeft(m.bitAnd(quad, m.i32(3)), m.i32(1)) : quad;
        Value at =
            m.add(m.add(record, m.i32(512)), m.shiftLeft(m.add(m.shiftLeft(dword, m.i32(5)), rowInBlock), m.i32(2)));
        Value high = m.bitAnd(m.shiftRight(m.loadWord(weights.memory, {piece, at}), m.add(byte, from)),
                              m.i32(above == 2 ? 3 : 1));
        code = m.bitOr(code, m.shiftLeft(high, m.i32(4)));
      }
      if (zeroOf(format))
        code = m.subtract(code, m.i32(zeroOf(format)));
    }
    auto at = [&](int64_t constant, int64_t bytesPerRow) -> Address {
      return {piece, m.add(m.add(record, m.i32(constant)), m.multiply(rowInBlock, m.i32(bytesPerRow)))};
    };
    Value step, least;
    if (format == BlockFormat::q4_k) {
      Value bytes = m.loadHalf(weights.memory, at(512, 2)), steps = m.loadWord(weights.memory, at(576, 4));
      step = m.multiply(m.halfToFloat(m.bitAnd(steps, m.i32(0xFFFF))), m.toFloat(m.bitAnd(bytes, m.i32(255))));
      least = m.multiply(m.halfToFloat(m.shiftRight(steps, m.i32(16))),
                         m.toFloat(m.bitAnd(m.shiftRight(bytes, m.i32(8)), m.i32(255))));
    } else if (format == BlockFormat::q6_k) {
      Value bits = m.loadWord(weights.memory, at(768, 4));
      Value scale = m.select(m.less(lane, m.i32(kQuantum / 2)), m.signExtend(bits, 8),
                             m.signExtend(m.shiftRight(bits, m.i32(8)), 8));
      step = m.multiply(m.halfToFloat(m.shiftRight(bits, m.i32(16))), m.toFloat(scale));
    } else {
      step = m.halfToFloat(m.loadHalf(weights.memory, at(scalesAt(format), 2)));
    }
    value = m.multiply(step, m.toFloat(code));
    if (least)
      value = m.subtract(value, least);
  }
  if (weights.type.getInputs() % kQuantum == 0)
    return value;
  Value input = m.add(m.multiply(group, m.i32(kQuantum)), lane);
  return m.select(m.less(input, m.i32(weights.type.getInputs())), value, m.f32(0));
}

} // namespace freeport::vulkan
