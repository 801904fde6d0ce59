// Ops on packed weights. A lane is a row of a block: the words of a record lie lane beside lane, the activations are
// the same for all lanes. Integer dots are exact whether the device has the instruction or not.
#include "backends/vulkan/compiler/Machine.h"

using namespace mlir;

namespace freeport::vulkan {
namespace {

using kernel::BlockFormat;
using kernel::kQuantum;

int64_t inputsPerWord(BlockFormat format) {
  return format == BlockFormat::f32 ? 1 : format == BlockFormat::q8 ? 4 : format == BlockFormat::q4 ? 8 : 2;
}

/// Bytes of a record before its scales.
int64_t payloadBytes(BlockFormat format) { return 4 * kQuantum * kQuantum / inputsPerWord(format); }

class SpanDotLowering {
public:
  SpanDotLowering(Machine &m, kernel::SpanDotOp op, const PackedWeights &weights, const Memory &activations,
                  function_ref<Value(Value)> scalar)
      : m(m), op(op), weights(weights), activations(activations), scalar(scalar), format(weights.type.getFormat()),
        activationType(op.getActivations().getType()) {}

  SmallVector<Value> lower() {
    lane = m.lane();
    for (Value block : op.getRowBlocks())
      rows.push_back(firstRecord(scalar(block)));
    for (Value token : op.getTokens())
      tokens.push_back(m.multiply(scalar(token), m.i32(activationType.getTokenBytes())));
    Value first = m.multiply(scalar(op.getSpan()), m.i32(kQuantum)), groups = m.i32(weights.type.getGroups());
    Value last = m.add(first, m.i32(kQuantum));
    last = m.select(m.less(last, groups), last, groups);
    SmallVector<Value> zeros(rows.size() * tokens.size(), m.zero());
    return m.loop(first, last, m.i32(1), zeros, [&](Value group, ValueRange sums) {
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

  SmallVector<Value> addQuantized(Value group, ValueRange sums) {
    bool q4 = format == BlockFormat::q4;
    Value recordOffset = m.multiply(group, m.i32(weights.type.getRecordBytes()));
    Value codeOffset = m.multiply(group, m.i32(kQuantum)), wordOffset = m.multiply(group, m.i32(4));
    int64_t words = q4 ? 4 : 8, scalesAt = kQuantum * activationType.getGroups();
    struct Token {
      SmallVector<Value> words;
      Value scale, bias;
    };
    SmallVector<Token> inputs;
    for (Value token : tokens) {
      Token &input = inputs.emplace_back();
      for (int64_t word = 0; word < kQuantum / 4; ++word)
        input.words.push_back(activationWord(token, codeOffset, 4 * word));
      input.scale = m.fromBits(activationWord(token, wordOffset, scalesAt));
      // Codes of q4 stay unsigned, 0 to 15; what that adds is 8 times the sum of the bytes.
      if (q4)
        input.bias =
            m.multiply(activationWord(token, wordOffset, scalesAt + 4 * activationType.getGroups()), m.i32(-8));
    }
    SmallVector<Value> next;
    for (const Address &row : rows) {
      SmallVector<Value> codes;
      for (int64_t word = 0; word < words; ++word) {
        Value code = weightWord(row, recordOffset, 4 * kQuantum * word);
        if (!q4) {
          codes.push_back(code);
          continue;
        }
        codes.push_back(m.bitAnd(code, m.i32(0x0F0F0F0F)));
        codes.push_back(m.bitAnd(m.shiftRight(code, m.i32(4)), m.i32(0x0F0F0F0F)));
      }
      Value scaleBytes = m.add(m.add(row.bytes, recordOffset), m.i32(payloadBytes(format)));
      scaleBytes = m.add(scaleBytes, m.multiply(lane, m.i32(2)));
      Value rowScale = m.halfToFloat(m.loadHalf(weights.memory, {row.piece, scaleBytes}));
      for (const Token &input : inputs) {
        Value dot = input.bias;
        for (auto [code, word] : llvm::zip(codes, input.words)) {
          Value part = m.dot4(code, q4, word);
          dot = dot ? m.add(dot, part) : part;
        }
        Value product = m.multiply(m.toFloat(dot), m.multiply(rowScale, input.scale));
        next.push_back(m.add(sums[next.size()], product));
      }
    }
    return next;
  }

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
  const Memory &activations;
  function_ref<Value(Value)> scalar;
  BlockFormat format;
  kernel::ActivationsType activationType;
  Value lane;
  SmallVector<Address> rows; ///< the first record of each row block
  SmallVector<Value> tokens; ///< where each token's record begins, in bytes
};

} // namespace

SmallVector<Value> lowerSpanDot(Machine &machine, kernel::SpanDotOp op, const PackedWeights &weights,
                                const Memory &activations, function_ref<Value(Value)> scalar) {
  return SpanDotLowering(machine, op, weights, activations, scalar).lower();
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
      code = m.subtract(m.bitAnd(m.shiftRight(bits, shift), m.i32(15)), m.i32(8));
    }
    Value scaleBytes = m.add(m.add(record, m.i32(payloadBytes(format))), m.multiply(rowInBlock, m.i32(2)));
    Value scale = m.halfToFloat(m.loadHalf(weights.memory, {piece, scaleBytes}));
    value = m.multiply(scale, m.toFloat(code));
  }
  if (weights.type.getInputs() % kQuantum == 0)
    return value;
  Value input = m.add(m.multiply(group, m.i32(kQuantum)), lane);
  return m.select(m.less(input, m.i32(weights.type.getInputs())), value, m.f32(0));
}

} // namespace freeport::vulkan
