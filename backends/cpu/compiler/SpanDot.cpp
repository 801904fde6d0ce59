// The hot op. A walk goes over the groups of a span with its accumulators in registers: one token walks all lanes of
// several row blocks together, so that memory streams; several tokens walk one row block in strips of 4, 8 or 16 lanes.
#include "backends/cpu/compiler/GroupDots.h"

using namespace mlir;

namespace freeport::cpu {
namespace {

using kernel::BlockFormat;

/// One token: row blocks that one walk streams. More tokens: tokens of one walk.
constexpr int64_t kStreams = 4;
constexpr int64_t kFloatTokens = 4;
constexpr int64_t kLine = 64;
/// Records ahead that are prefetched into the first-level cache, behind the distance of the second-level cache.
constexpr int64_t kNearRecords = 2;
/// Float accumulators that stay in registers beside the operands.
constexpr int64_t kFloatAccumulators = 8;

class SpanDotLowering {
public:
  SpanDotLowering(Machine &machine, kernel::SpanDotOp op, Value weights, Value activations)
      : m(machine), op(op), weights(op.getWeights().getType()), activations(op.getActivations().getType()),
        format(this->weights.getFormat()), weightBase(weights), activationBase(activations) {
    if (this->weights.isQuantized()) {
      groupDots = machine.profile.architecture == Architecture::x86_64
                      ? createX86Dots(machine, format, op.getTokens().size())
                      : createNeonDots(machine, format);
      stripLanes = groupDots->lanes;
    }
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
  void prefetch(const Walk &walk, Value group);
  void addQuantized(const Walk &walk, Value group, MutableArrayRef<Value> sums);
  void addFloats(const Walk &walk, Value group, MutableArrayRef<Value> sums);
  /// The strip whose dwords and halves begin at these addresses.
  Strip strip(Value dwords, Value halves);
  Value halfsToFloats(Value i32WithHalves, int64_t shift);
  /// The weights of a dword of a strip as floats, one vector per input, lanes in the order of `unpermute`.
  SmallVector<Value> widenDword(Value dword);
  Value unpermute(Value sum);
  Value records(Value rowBlock);

  Machine &m;
  kernel::SpanDotOp op;
  kernel::WeightsType weights;
  kernel::ActivationsType activations;
  BlockFormat format;
  Value weightBase, activationBase, first, last;
  Value prefetchDistance;               ///< bytes, 0: none; of a single token, whose weights nothing reads again
  std::unique_ptr<GroupDots> groupDots; ///< of quantised weights
  int64_t stripLanes = 8;
  VectorType wordLanes, floatLanes; ///< of a strip
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
    auto chosen = op->getParentOfType<ModuleOp>()->getAttrOfType<IntegerAttr>(kPrefetchDistanceAttribute);
    prefetchDistance = m.load(m.builder.getI64Type(), m.globalAddress(kPrefetchDistance, chosen ? chosen.getInt() : 0));
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
  size_t together = groupDots ? groupDots->tokensTogether : kFloatTokens;
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
  auto loop = [&](bool prefetches) {
    return m.loop(first, last, 1, zeros, [&](Value group, ValueRange carried) {
      SmallVector<Value> next(carried);
      if (prefetches)
        prefetch(walk, group);
      if (weights.isQuantized())
        addQuantized(walk, group, next);
      else
        addFloats(walk, group, next);
      return next;
    });
  };
  SmallVector<Value> sums;
  if (prefetchDistance) {
    Value wanted = m.create<arith::CmpIOp>(arith::CmpIPredicate::ne, prefetchDistance, m.i64(0));
    sums = m.choose(wanted, [&] { return loop(true); }, [&] { return loop(false); });
  } else {
    sums = loop(false);
  }
  for (Value &sum : sums)
    sum = unpermute(sum);
  return sums;
}

/// Asks for the lines of a record that lies ahead, for the second-level cache, and of one that is nearer, for the
/// first-level cache (docs/decisions/0010-prefetching.md).
void SpanDotLowering::prefetch(const Walk &walk, Value group) {
  const int64_t recordBytes = weights.getRecordBytes();
  auto ask = [&](Value record, uint32_t hint) {
    for (int64_t line = 0; line < recordBytes; line += kLine)
      m.create<LLVM::Prefetch>(m.address(record, line), /*rw=*/0u, hint, /*cache=*/1u);
  };
  for (Value row : walk.rows) {
    Value record = m.address(row, m.multiply(group, m.i64(recordBytes)));
    ask(m.address(record, prefetchDistance), /*hint=*/2);
    ask(m.address(record, kNearRecords * recordBytes), /*hint=*/3);
  }
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
      for (auto [t, dot] : llvm::enumerate(groupDots->dots(part, codes, tokenSums))) {
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

Strip SpanDotLowering::strip(Value dwords, Value halves) {
  Strip part{dwords, {}, {}, {}, {}};
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
