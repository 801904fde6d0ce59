// The integer core of span_dot for AVX2, and for what adds four products of bytes at once (VNNI).
#include "backends/cpu/compiler/GroupDots.h"

using namespace mlir;

namespace freeport::cpu {
namespace {

using kernel::BlockFormat;

/// Through pmaddubsw, whose first operand is unsigned: codes that are, or magnitudes of signed ones.
class PairDots : public GroupDots {
public:
  using GroupDots::GroupDots;

  SmallVector<Value> dots(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums) override {
    if (format == BlockFormat::q6_k)
      return dotQ6K(strip, codes);
    if (format == BlockFormat::q8)
      return dotQ8(strip, codes);
    SmallVector<Value> dots = dotUnsigned(strip, codes, sums);
    if (strip.scales[0])
      for (Value &dot : dots)
        dot = m.multiply(strip.scales[0], dot);
    return dots;
  }

private:
  Value product(Value unsignedBytes, Value signedBytes) {
    return m.intrinsic("llvm.x86.avx2.pmadd.ub.sw", shortLanes, {unsignedBytes, signedBytes});
  }
  Value addPairs(Value i16Pairs) {
    return m.intrinsic("llvm.x86.avx2.pmadd.wd", wordLanes, {i16Pairs, m.splatConstant(shortLanes, 1)});
  }
  Value broadcastBytes(Value pointer, int64_t offset) {
    return m.bitcast(m.splat(m.load(m.builder.getI32Type(), m.address(pointer, offset)), lanes), byteLanes);
  }
  Value withSignOf(Value bytes, Value signs) { return m.intrinsic("llvm.x86.avx2.psign.b", byteLanes, {bytes, signs}); }

  SmallVector<Value> dotUnsigned(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums) {
    // Codes stay unsigned, 0 to 15 or 31: the sums of two products of a lane fit in i16, 8 of them for the former,
    // 8 * 2 * 15 * 127 = 30480, 4 of them for the latter, 4 * 2 * 31 * 127 = 31496.
    int64_t together = format == BlockFormat::q5 ? 4 : 8;
    SmallVector<Value> dots(codes.size()), pairs(codes.size());
    for (int64_t word = 0; word < kernel::kQuantum / 4; ++word) {
      Value weights = bytes(strip, word);
      for (auto [code, dot, pair] : llvm::zip(codes, dots, pairs)) {
        Value part = product(weights, broadcastBytes(code, 4 * word));
        pair = word % together ? m.add(pair, part) : part;
        if ((word + 1) % together == 0)
          dot = dot ? m.add(dot, addPairs(pair)) : addPairs(pair);
      }
    }
    if (zeroPoint())
      for (auto [dot, sum] : llvm::zip(dots, sums))
        dot = m.create<arith::SubIOp>(dot, splatWord(sum, zeroPoint()));
    return dots;
  }

  SmallVector<Value> dotQ6K(const Strip &strip, ArrayRef<Value> codes) {
    // As q8 with values of -32 to 31: 4 sums of two products fit in i16, 4 * 2 * 32 * 127 = 32512.
    SmallVector<Value> dots(codes.size()), pairs(codes.size());
    for (int64_t word = 0; word < kernel::kQuantum / 4; ++word) {
      Value weights = m.create<arith::SubIOp>(bytes(strip, word), m.splatConstant(byteLanes, zeroPoint()));
      Value magnitude = m.create<LLVM::AbsOp>(byteLanes, weights, /*is_int_min_poison=*/false);
      for (auto [code, dot, pair] : llvm::zip(codes, dots, pairs)) {
        Value part = product(magnitude, withSignOf(broadcastBytes(code, 4 * word), weights));
        pair = word % 4 ? m.add(pair, part) : part;
        if (word == 3)
          dot = m.multiply(strip.scales[0], addPairs(pair));
        else if (word == 7)
          dot = m.add(dot, m.multiply(strip.scales[1], addPairs(pair)));
      }
    }
    return dots;
  }

  SmallVector<Value> dotQ8(const Strip &strip, ArrayRef<Value> codes) {
    // |w| is unsigned, up to 128, and x takes w's sign: a sum of two products fits in i16, 2 * 128 * 127 = 32512.
    SmallVector<Value> dots(codes.size());
    for (int64_t word = 0; word < kernel::kQuantum / 4; ++word) {
      Value weights = bytes(strip, word);
      Value magnitude = m.create<LLVM::AbsOp>(byteLanes, weights, /*is_int_min_poison=*/false);
      for (auto [code, dot] : llvm::zip(codes, dots)) {
        Value sum = addPairs(product(magnitude, withSignOf(broadcastBytes(code, 4 * word), weights)));
        dot = dot ? m.add(dot, sum) : sum;
      }
    }
    return dots;
  }
};

/// Through vpdpbusd. Codes are unsigned bytes, those of q8 with 128 added; what that adds is taken off first, by the
/// sum of the bytes.
class QuadDots : public GroupDots {
public:
  using GroupDots::GroupDots;

  SmallVector<Value> dots(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums) override {
    int64_t zero = format == BlockFormat::q8 ? 128 : zeroPoint();
    std::string name = ("llvm.x86.avx512.vpdpbusd." + Twine(32 * lanes)).str();
    SmallVector<Value> dots;
    for (Value sum : sums)
      dots.push_back(zero ? splatWord(sum, -zero) : m.zero(wordLanes));
    for (int64_t word = 0; word < kernel::kQuantum / 4; ++word) {
      Value weights = m.bitcast(bytes(strip, word), wordLanes);
      if (format == BlockFormat::q8)
        weights = m.create<arith::XOrIOp>(weights, m.splatConstant(wordLanes, int32_t(0x80808080)));
      for (auto [code, dot] : llvm::zip(codes, dots)) {
        Value x = m.splat(m.load(m.builder.getI32Type(), m.address(code, 4 * word)), lanes);
        dot = m.intrinsic(name, wordLanes, {dot, weights, x});
      }
    }
    if (strip.scales[0])
      for (Value &dot : dots)
        dot = m.multiply(strip.scales[0], dot);
    return dots;
  }
};

} // namespace

std::unique_ptr<GroupDots> createX86Dots(Machine &machine, BlockFormat format, size_t tokens) {
  // q6_k would need sums of half a group's bytes.
  if (machine.profile.products != ByteProducts::vpdpbusd || format == BlockFormat::q6_k)
    return std::make_unique<PairDots>(machine, format, 8, 4);
  // One token waits for memory, and 512 bits a register are slower there (q8, one core of Zen 4: 57 ms, not 47).
  return std::make_unique<QuadDots>(machine, format, tokens == 1 ? 8 : machine.profile.productLanes, 8);
}

} // namespace freeport::cpu
