// The hot op for AVX2, and for what adds products of four bytes at once (VNNI). A walk goes over the groups of a span
// with its accumulators in registers: one token walks all lanes of several row blocks together, so that memory streams;
// several tokens walk one row block in strips of 8 or 16 lanes.
#include "backends/cpu/compiler/KernelLowering.h"

using namespace mlir;

namespace freeport::cpu {
namespace {

using kernel::BlockFormat;

/// One token: row blocks that one walk streams. More tokens: tokens of one walk, where VNNI leaves registers free more.
constexpr int64_t kStreams = 4;
constexpr int64_t kProductTokens = 8;
/// Float accumulators that stay in registers beside the operands.
constexpr int64_t kFloatAccumulators = 8;

class SpanDotLowering {
public:
  SpanDotLowering(Machine &machine, kernel::SpanDotOp op, Value weights, Value activations)
      : m(machine), op(op), weights(op.getWeights().getType()), activations(op.getActivations().getType()),
        format(this->weights.getFormat()), weightBase(weights), activationBase(activations) {
    // q6_k would need sums of half a group's bytes.
    products = this->weights.isQuantized() && format != BlockFormat::q6_k ? machine.profile.productLanes : 0;
    // One token waits for memory, and 512 bits a register are slower there (q8, one core of Zen 4: 57 ms, not 47).
    if (products && op.getTokens().size() == 1)
      products = 8;
    stripLanes = products ? products : 8;
    byteLanes = m.lanes(4 * stripLanes, m.builder.getI8Type());
    shortLanes = m.lanes(2 * stripLanes, m.builder.getI16Type());
    wordLanes = m.lanes(stripLanes, m.builder.getI32Type());
    floatLanes = m.lanes(stripLanes, m.f32());
  }

  Value lower();

private:
  /// Which part of the result a walk computes: row blocks x tokens x strips, from a strip that may be known at run time
  /// only.
  struct Walk {
    ArrayRef<Value> rows, tokens;
    Value firstStrip;
    int64_t strips;

    size_t at(size_t row, size_t token, size_t strip) const { return (row * tokens.size() + token) * strips + strip; }
    size_t size() const { return rows.size() * tokens.size() * strips; }
  };

  SmallVector<Value> walk(const Walk &walk);
  void addQuantized(const Walk &walk, Value group, MutableArrayRef<Value> sums);
  void addFloats(const Walk &walk, Value group, MutableArrayRef<Value> sums);
  /// Where a strip's dwords and halves begin in a record, and what stands behind its integers: a value is
  /// step * scales[half] * integer - least * minimum, without what is null.
  struct Strip {
    Value dwords, halves;
    Value step, least;        ///< floats
    Value scales[2], minimum; ///< words; one scale for both halves unless there is a second
  };
  Strip strip(Value dwords, Value halves);
  /// Exact dots of a strip and each token's group, as words, scales included; `codes` and `sums` are the
  /// addresses of the tokens' groups and sums.
  SmallVector<Value> dots(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums);
  SmallVector<Value> dotUnsigned(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums);
  SmallVector<Value> dotQ6K(const Strip &strip, ArrayRef<Value> codes);
  SmallVector<Value> dotQ8(Value record, ArrayRef<Value> codes);
  SmallVector<Value> dotProducts(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums);
  /// Bytes of inputs 4 * word .. 4 * word + 3 of the formats that keep nibbles, with the bits above them.
  Value nibbles(const Strip &strip, int64_t word);
  Value halfsToFloats(Value i32WithHalves, int64_t shift);
  /// The weights of a dword of a strip as floats, one vector per input, lanes in the order of `unpermute`.
  SmallVector<Value> widenDword(Value dword);
  Value unpermute(Value sum);
  Value product(Value unsignedBytes, Value signedBytes);
  Value addPairs(Value i16Pairs);
  Value broadcastBytes(Value pointer, int64_t offset);
  Value records(Value rowBlock);

  Machine &m;
  kernel::SpanDotOp op;
  kernel::WeightsType weights;
  kernel::ActivationsType activations;
  BlockFormat format;
  Value weightBase, activationBase, first, last;
  int64_t products = 0, stripLanes = 8;
  VectorType byteLanes, shortLanes, wordLanes,
      floatLanes; ///< of a strip: four bytes, two shorts, a word or a float a lane
};

Value SpanDotLowering::records(Value rowBlock) {
  Value bytes = m.multiply(m.toI64(rowBlock), m.i64(weights.getGroups() * weights.getRecordBytes()));
  if (op.getEntry())
    bytes = m.add(bytes, m.multiply(m.toI64(op.getEntry()), m.i64(weights.getEntryStride())));
  return m.address(weightBase, bytes);
}

Value SpanDotLowering::lower() {
  Value span = m.toI64(op.getSpan());
  first = m.multiply(span, m.i64(kernel::kQuantum));
  last = m.create<arith::MinSIOp>(m.add(first, m.i64(kernel::kQuantum)), m.i64(weights.getGroups()));
  SmallVector<Value> rows, tokens;
  for (Value rowBlock : op.getRowBlocks())
    rows.push_back(records(rowBlock));
  for (Value token : op.getTokens())
    tokens.push_back(m.address(activationBase, m.multiply(m.toI64(token), m.i64(activations.getTokenBytes()))));

  auto type = cast<VectorType>(op.getResult().getType());
  Value result = m.zero(type);
  auto put = [&](Value lanes, int64_t row, int64_t token) {
    result = m.create<vector::InsertOp>(lanes, result, ArrayRef<int64_t>{row, token});
  };
  if (tokens.size() == 1) {
    for (size_t row = 0; row < rows.size(); row += kStreams) {
      Walk part{ArrayRef(rows).slice(row).take_front(kStreams), tokens, Value(), kernel::kQuantum / stripLanes};
      SmallVector<Value> sums = walk(part);
      for (size_t r = 0; r < part.rows.size(); ++r)
        put(m.concatenate(ArrayRef(sums).slice((kernel::kQuantum / stripLanes) * r, (kernel::kQuantum / stripLanes))),
            row + r, 0);
    }
    return result;
  }
  int64_t strips = weights.isQuantized() ? 1 : 2;
  size_t together = products ? kProductTokens : kStreams;
  Value scratch = m.stack(4 * type.getNumElements());
  auto place = [&](size_t row, size_t token) {
    return m.address(scratch, 4 * kernel::kQuantum * int64_t(row * tokens.size() + token));
  };
  for (size_t row = 0; row < rows.size(); ++row)
    for (size_t token = 0; token < tokens.size(); token += together)
      m.loop(m.i64(0), m.i64((kernel::kQuantum / stripLanes)), strips, {},
             [&](Value strip, ValueRange) -> SmallVector<Value> {
               Walk part{ArrayRef(rows).slice(row, 1), ArrayRef(tokens).slice(token).take_front(together), strip,
                         strips};
               SmallVector<Value> sums = walk(part);
               Value offset = m.multiply(strip, m.i64(4 * stripLanes));
               for (size_t t = 0; t < part.tokens.size(); ++t)
                 for (int64_t s = 0; s < strips; ++s)
                   m.store(sums[part.at(0, t, s)],
                           m.address(m.address(place(row, token + t), offset), 4 * stripLanes * s));
               return {};
             });
  for (size_t row = 0; row < rows.size(); ++row)
    for (size_t token = 0; token < tokens.size(); ++token)
      put(m.load(m.lanes(kernel::kQuantum, m.f32()), place(row, token)), row, token);
  return result;
}

SmallVector<Value> SpanDotLowering::walk(const Walk &walk) {
  SmallVector<Value> zeros(walk.size(), m.zero(floatLanes));
  SmallVector<Value> sums = m.loop(first, last, 1, zeros, [&](Value group, ValueRange carried) {
    SmallVector<Value> next(carried);
    if (weights.isQuantized())
      addQuantized(walk, group, next);
    else
      addFloats(walk, group, next);
    return next;
  });
  for (Value &sum : sums)
    sum = unpermute(sum);
  return sums;
}

//===----------------------------------------------------------------------===//
// Quantised: exact integer dots, then one product of scales, one product, one sum
//===----------------------------------------------------------------------===//

void SpanDotLowering::addQuantized(const Walk &walk, Value group, MutableArrayRef<Value> sums) {
  SmallVector<Value> codes, scales, tokenSums;
  Value groupBytes = m.multiply(group, m.i64(kernel::kQuantum)), wordBytes = m.multiply(group, m.i64(4));
  for (Value token : walk.tokens) {
    codes.push_back(m.address(token, groupBytes));
    Value behind = m.address(token, wordBytes);
    scales.push_back(m.load(m.f32(), m.address(behind, kernel::kQuantum * activations.getGroups())));
    tokenSums.push_back(m.address(behind, (kernel::kQuantum + 4) * activations.getGroups()));
  }
  Value recordBytes = m.multiply(group, m.i64(weights.getRecordBytes()));
  for (auto [r, row] : llvm::enumerate(walk.rows)) {
    Value dwords = m.address(row, recordBytes), halves = dwords;
    if (walk.firstStrip) {
      dwords = m.address(dwords, m.multiply(walk.firstStrip, m.i64(4 * stripLanes)));
      halves = m.address(halves, m.multiply(walk.firstStrip, m.i64(2 * stripLanes)));
    }
    for (int64_t s = 0; s < walk.strips; ++s) {
      Strip part = strip(m.address(dwords, 4 * stripLanes * s), m.address(halves, 2 * stripLanes * s));
      for (auto [t, dot] : llvm::enumerate(dots(part, codes, tokenSums))) {
        Value &sum = sums[walk.at(r, t, s)];
        Value scale = m.splat(scales[t], stripLanes);
        Value value = m.multiply(m.create<arith::SIToFPOp>(floatLanes, dot), m.multiply(part.step, scale));
        if (part.minimum) {
          Value tokenSum = m.splat(m.load(m.builder.getI32Type(), tokenSums[t]), stripLanes);
          Value least = m.create<arith::SIToFPOp>(floatLanes, m.multiply(part.minimum, tokenSum));
          value = m.create<arith::SubFOp>(value, m.multiply(least, m.multiply(part.least, scale)));
        }
        sum = m.add(sum, value);
      }
    }
  }
}

Value SpanDotLowering::halfsToFloats(Value pairs, int64_t shift) {
  if (shift)
    pairs = m.create<arith::ShRUIOp>(pairs, m.splatConstant(wordLanes, shift));
  Value bits = m.create<arith::TruncIOp>(m.lanes(stripLanes, m.builder.getI16Type()), pairs);
  return m.widen(m.bitcast(bits, m.lanes(stripLanes, m.builder.getF16Type())));
}

SpanDotLowering::Strip SpanDotLowering::strip(Value dwords, Value halves) {
  Strip part{dwords, halves, {}, {}, {}, {}};
  if (format == BlockFormat::q4_k) {
    Value bytes = m.create<arith::ExtUIOp>(wordLanes,
                                           m.load(m.lanes(stripLanes, m.builder.getI16Type()), m.address(halves, 512)));
    part.scales[0] = m.create<arith::AndIOp>(bytes, m.splatConstant(wordLanes, 255));
    part.minimum = m.create<arith::ShRUIOp>(bytes, m.splatConstant(wordLanes, 8));
    Value steps = m.load(wordLanes, m.address(dwords, 576));
    part.step = halfsToFloats(steps, 0);
    part.least = halfsToFloats(steps, 16);
    return part;
  }
  if (format == BlockFormat::q6_k) {
    Value word = m.load(wordLanes, m.address(dwords, 768));
    for (int64_t half = 0; half < 2; ++half) {
      Value top = m.create<arith::ShLIOp>(word, m.splatConstant(wordLanes, 24 - 8 * half));
      part.scales[half] = m.create<arith::ShRSIOp>(top, m.splatConstant(wordLanes, 24));
    }
    part.step = halfsToFloats(word, 16);
    return part;
  }
  int64_t payload = format == BlockFormat::q8 ? 1024 : format == BlockFormat::q5 ? 640 : 512;
  part.step = m.widen(m.load(m.lanes(stripLanes, m.builder.getF16Type()), m.address(halves, payload)));
  return part;
}

SmallVector<Value> SpanDotLowering::dots(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums) {
  if (format == BlockFormat::q6_k)
    return dotQ6K(strip, codes);
  if (format == BlockFormat::q8 && !products)
    return dotQ8(strip.dwords, codes);
  SmallVector<Value> dots = products ? dotProducts(strip, codes, sums) : dotUnsigned(strip, codes, sums);
  if (strip.scales[0])
    for (Value &dot : dots)
      dot = m.multiply(strip.scales[0], dot);
  return dots;
}

Value SpanDotLowering::broadcastBytes(Value pointer, int64_t offset) {
  return m.bitcast(m.splat(m.load(m.builder.getI32Type(), m.address(pointer, offset)), stripLanes), byteLanes);
}
Value SpanDotLowering::product(Value unsignedBytes, Value signedBytes) {
  return m.intrinsic("llvm.x86.avx2.pmadd.ub.sw", shortLanes, {unsignedBytes, signedBytes});
}
Value SpanDotLowering::addPairs(Value i16Pairs) {
  return m.intrinsic("llvm.x86.avx2.pmadd.wd", wordLanes, {i16Pairs, m.splatConstant(shortLanes, 1)});
}

Value SpanDotLowering::nibbles(const Strip &strip, int64_t word) {
  Value bytes = m.load(byteLanes, m.address(strip.dwords, 128 * (word / 2)));
  if (word % 2)
    bytes =
        m.bitcast(m.create<arith::ShRUIOp>(m.bitcast(bytes, shortLanes), m.splatConstant(shortLanes, 4)), byteLanes);
  Value low = m.create<arith::AndIOp>(bytes, m.splatConstant(byteLanes, 15));
  int64_t bits = format == BlockFormat::q5 ? 1 : format == BlockFormat::q6_k ? 2 : 0;
  if (!bits)
    return low;
  Value above = m.load(wordLanes, m.address(strip.dwords, 512 + (bits == 2 ? 128 * (word / 4) : 0)));
  int64_t from = bits == 2 ? 2 * (word % 4) : word;
  above = from > 4 ? m.create<arith::ShRUIOp>(above, m.splatConstant(wordLanes, from - 4)).getResult()
                   : m.create<arith::ShLIOp>(above, m.splatConstant(wordLanes, 4 - from)).getResult();
  above = m.create<arith::AndIOp>(m.bitcast(above, byteLanes), m.splatConstant(byteLanes, bits == 2 ? 0x30 : 0x10));
  return m.create<arith::OrIOp>(low, above);
}

SmallVector<Value> SpanDotLowering::dotUnsigned(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums) {
  // Codes stay unsigned, 0 to 15 or 31: the sums of two products of a lane fit in i16, 8 of them for the former,
  // 8 * 2 * 15 * 127 = 30480, 4 of them for the latter, 4 * 2 * 31 * 127 = 31496.
  int64_t together = format == BlockFormat::q5 ? 4 : 8;
  int64_t zero = format == BlockFormat::q5 ? 16 : format == BlockFormat::q4 ? 8 : 0;
  SmallVector<Value> dots(codes.size()), pairs(codes.size());
  for (int64_t word = 0; word < kernel::kQuantum / 4; ++word) {
    Value bytes = nibbles(strip, word);
    for (auto [code, dot, pair] : llvm::zip(codes, dots, pairs)) {
      Value part = product(bytes, broadcastBytes(code, 4 * word));
      pair = word % together ? m.add(pair, part) : part;
      if ((word + 1) % together == 0)
        dot = dot ? m.add(dot, addPairs(pair)) : addPairs(pair);
    }
  }
  for (auto [dot, sum] : llvm::zip(dots, sums))
    if (zero)
      dot = m.create<arith::SubIOp>(dot,
                                    m.splat(m.multiply(m.load(m.builder.getI32Type(), sum), m.i32(zero)), stripLanes));
  return dots;
}

SmallVector<Value> SpanDotLowering::dotProducts(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums) {
  // Codes are unsigned bytes, those of q8 with 128 added; what that adds is taken off first, by the sum of the bytes.
  int64_t zero = format == BlockFormat::q8 ? 128 : format == BlockFormat::q5 ? 16 : format == BlockFormat::q4 ? 8 : 0;
  std::string name = ("llvm.x86.avx512.vpdpbusd." + Twine(32 * products)).str();
  SmallVector<Value> dots;
  for (Value sum : sums)
    dots.push_back(zero ? m.splat(m.multiply(m.load(m.builder.getI32Type(), sum), m.i32(-zero)), stripLanes)
                        : m.zero(wordLanes));
  for (int64_t word = 0; word < kernel::kQuantum / 4; ++word) {
    Value unsignedBytes;
    if (format == BlockFormat::q8)
      unsignedBytes = m.create<arith::XOrIOp>(m.load(wordLanes, m.address(strip.dwords, 128 * word)),
                                              m.splatConstant(wordLanes, int32_t(0x80808080)));
    else
      unsignedBytes = m.bitcast(nibbles(strip, word), wordLanes);
    for (auto [code, dot] : llvm::zip(codes, dots)) {
      Value x = m.splat(m.load(m.builder.getI32Type(), m.address(code, 4 * word)), stripLanes);
      dot = m.intrinsic(name, wordLanes, {dot, unsignedBytes, x});
    }
  }
  return dots;
}

SmallVector<Value> SpanDotLowering::dotQ6K(const Strip &strip, ArrayRef<Value> codes) {
  // As q8 with values of -32 to 31: 4 sums of two products fit in i16, 4 * 2 * 32 * 127 = 32512.
  SmallVector<Value> dots(codes.size()), pairs(codes.size());
  for (int64_t word = 0; word < kernel::kQuantum / 4; ++word) {
    Value bytes = m.create<arith::SubIOp>(nibbles(strip, word), m.splatConstant(byteLanes, 32));
    Value magnitude = m.create<LLVM::AbsOp>(byteLanes, bytes, /*is_int_min_poison=*/false);
    for (auto [code, dot, pair] : llvm::zip(codes, dots, pairs)) {
      Value part =
          product(magnitude, m.intrinsic("llvm.x86.avx2.psign.b", byteLanes, {broadcastBytes(code, 4 * word), bytes}));
      pair = word % 4 ? m.add(pair, part) : part;
      if (word == 3)
        dot = m.multiply(strip.scales[0], addPairs(pair));
      else if (word == 7)
        dot = m.add(dot, m.multiply(strip.scales[1], addPairs(pair)));
    }
  }
  return dots;
}

SmallVector<Value> SpanDotLowering::dotQ8(Value record, ArrayRef<Value> codes) {
  // |w| is unsigned, up to 128, and x takes w's sign: a sum of two products fits in i16, 2 * 128 * 127 = 32512.
  SmallVector<Value> dots(codes.size());
  for (int64_t dword = 0; dword < 8; ++dword) {
    Value bytes = m.load(byteLanes, m.address(record, 128 * dword));
    Value magnitude = m.create<LLVM::AbsOp>(byteLanes, bytes, /*is_int_min_poison=*/false);
    for (auto [code, dot] : llvm::zip(codes, dots)) {
      Value x = m.intrinsic("llvm.x86.avx2.psign.b", byteLanes, {broadcastBytes(code, 4 * dword), bytes});
      Value sum = addPairs(product(magnitude, x));
      dot = dot ? m.add(dot, sum) : sum;
    }
  }
  return dots;
}

//===----------------------------------------------------------------------===//
// Floats: one accumulator per row and token runs through the span
//===----------------------------------------------------------------------===//

void SpanDotLowering::addFloats(const Walk &walk, Value group, MutableArrayRef<Value> sums) {
  int64_t inputsPerDword = format == BlockFormat::f32 ? 1 : 2, dwords = kernel::kQuantum / inputsPerDword;
  int64_t unroll = 4 / inputsPerDword;
  SmallVector<Value> records, inputs;
  for (Value row : walk.rows)
    records.push_back(m.address(row, m.multiply(group, m.i64(weights.getRecordBytes()))));
  for (Value token : walk.tokens)
    inputs.push_back(m.address(token, m.multiply(group, m.i64(4 * kernel::kQuantum))));
  int64_t together = std::max<int64_t>(1, kFloatAccumulators / int64_t(walk.rows.size() * walk.tokens.size()));
  for (int64_t strip = 0; strip < walk.strips; strip += together) {
    int64_t count = std::min(together, walk.strips - strip);
    Walk part{walk.rows, walk.tokens, Value(), count};
    SmallVector<Value> initial;
    for (size_t r = 0; r < walk.rows.size(); ++r)
      for (size_t t = 0; t < walk.tokens.size(); ++t)
        for (int64_t s = 0; s < count; ++s)
          initial.push_back(sums[walk.at(r, t, strip + s)]);
    Value stripBytes = m.i64(4 * stripLanes * strip);
    if (walk.firstStrip)
      stripBytes = m.add(stripBytes, m.multiply(walk.firstStrip, m.i64(4 * stripLanes)));
    SmallVector<Value> done = m.loop(m.i64(0), m.i64(dwords), unroll, initial, [&](Value dword, ValueRange carried) {
      SmallVector<Value> next(carried);
      Value dwordBytes = m.multiply(dword, m.i64(128)), inputBytes = m.multiply(dword, m.i64(4 * inputsPerDword));
      for (int64_t step = 0; step < unroll; ++step) {
        SmallVector<Value> broadcast;
        for (Value input : inputs)
          for (int64_t k = 0; k < inputsPerDword; ++k)
            broadcast.push_back(m.splat(
                m.load(m.f32(), m.address(m.address(input, inputBytes), 4 * (inputsPerDword * step + k))), stripLanes));
        for (size_t r = 0; r < records.size(); ++r) {
          Value row = m.address(m.address(records[r], dwordBytes), 128 * step);
          for (int64_t s = 0; s < count; ++s) {
            SmallVector<Value> floats = widenDword(m.address(m.address(row, stripBytes), 4 * stripLanes * s));
            for (int64_t k = 0; k < inputsPerDword; ++k)
              for (size_t t = 0; t < inputs.size(); ++t) {
                Value &sum = next[part.at(r, t, s)];
                sum = m.add(sum, m.multiply(floats[k], broadcast[t * inputsPerDword + k]));
              }
          }
        }
      }
      return next;
    });
    for (size_t r = 0; r < walk.rows.size(); ++r)
      for (size_t t = 0; t < walk.tokens.size(); ++t)
        for (int64_t s = 0; s < count; ++s)
          sums[walk.at(r, t, strip + s)] = done[part.at(r, t, s)];
  }
}

/// Where the even halves of 8 dwords land when a pair of registers is widened and shuffled within 128 bits; its own
/// inverse.
static constexpr int64_t kPairedLanes[] = {0, 1, 4, 5, 2, 3, 6, 7};

SmallVector<Value> SpanDotLowering::widenDword(Value dword) {
  if (format == BlockFormat::f32)
    return {m.load(floatLanes, dword)};
  if (format == BlockFormat::bf16) {
    Value bits = m.load(wordLanes, dword);
    Value low = m.create<arith::ShLIOp>(bits, m.splatConstant(wordLanes, 16));
    Value high = m.create<arith::AndIOp>(bits, m.splatConstant(wordLanes, -65536));
    return {m.bitcast(low, floatLanes), m.bitcast(high, floatLanes)};
  }
  Value halves = m.load(m.lanes(16, m.builder.getF16Type()), dword);
  Value a = m.widen(m.slice(halves, 0, 8)), b = m.widen(m.slice(halves, 8, 8));
  SmallVector<Value> floats;
  for (int64_t half = 0; half < 2; ++half) {
    SmallVector<int64_t> mask;
    for (int64_t lane : kPairedLanes)
      mask.push_back(2 * lane + half);
    floats.push_back(m.shuffle(a, b, mask));
  }
  return floats;
}

Value SpanDotLowering::unpermute(Value sum) {
  return format == BlockFormat::f16 ? m.shuffle(sum, sum, kPairedLanes) : sum;
}

} // namespace

Value lowerSpanDot(Machine &machine, kernel::SpanDotOp op, Value weights, Value activations) {
  return SpanDotLowering(machine, op, weights, activations).lower();
}

} // namespace freeport::cpu
