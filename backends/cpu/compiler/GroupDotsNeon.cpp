// The integer core of span_dot for aarch64, where both operands of a product of bytes are signed. Four rows make a
// strip, a register of 32-bit sums.
#include "backends/cpu/compiler/GroupDots.h"

using namespace mlir;

namespace freeport::cpu {
namespace {

using kernel::BlockFormat;

constexpr int64_t kWords = kernel::kQuantum / 4;

class NeonDots : public GroupDots {
public:
  NeonDots(Machine &machine, BlockFormat format)
      : GroupDots(machine, format, machine.profile.productLanes,
                  machine.profile.products == ByteProducts::smlal ? 4 : 8) {}

  SmallVector<Value> dots(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums) override {
    // The scales of q6_k need the halves of a group apart, for which a token has no sums: its codes become signed.
    bool halves = format == BlockFormat::q6_k;
    SmallVector<Value> weights, dots;
    for (int64_t word = 0; word < kWords; ++word) {
      weights.push_back(bytes(strip, word));
      if (halves)
        weights.back() = m.create<arith::SubIOp>(weights.back(), m.splatConstant(byteLanes, zeroPoint()));
    }
    ArrayRef<Value> words = weights;
    if (halves) {
      SmallVector<Value> low = dotWords(words.take_front(kWords / 2), codes, 0);
      SmallVector<Value> high = dotWords(words.drop_front(kWords / 2), codes, 16);
      for (auto [a, b] : llvm::zip(low, high))
        dots.push_back(m.add(m.multiply(strip.scales[0], a), m.multiply(strip.scales[1], b)));
      return dots;
    }
    dots = dotWords(words, codes, 0);
    for (auto [dot, sum] : llvm::zip(dots, sums)) {
      if (zeroPoint())
        dot = m.create<arith::SubIOp>(dot, splatWord(sum, zeroPoint()));
      if (strip.scales[0])
        dot = m.multiply(strip.scales[0], dot);
    }
    return dots;
  }

private:
  /// Sums of the products of `weights` and the words of each token from byte `from` of its group on.
  SmallVector<Value> dotWords(ArrayRef<Value> weights, ArrayRef<Value> codes, int64_t from) {
    SmallVector<SmallVector<Value>> tokens; // four words a register
    for (Value code : codes) {
      tokens.emplace_back();
      for (size_t word = 0; word < weights.size(); word += 4)
        tokens.back().push_back(m.load(wordLanes, m.address(code, from + 4 * static_cast<int64_t>(word))));
    }
    SmallVector<Value> dots;
    size_t token = 0;
    if (m.profile.products == ByteProducts::smmla)
      for (; token + 2 <= tokens.size(); token += 2)
        dots.append(dotPair(weights, tokens[token], tokens[token + 1]));
    for (; token < tokens.size(); ++token)
      dots.push_back(m.profile.products == ByteProducts::smlal ? dotShorts(weights, tokens[token])
                                                               : dotQuads(weights, tokens[token]));
    return dots;
  }

  /// The word in each lane, as bytes.
  Value broadcastWord(ArrayRef<Value> token, size_t word) {
    Value four = token[word / 4];
    int64_t lane = static_cast<int64_t>(word % 4);
    return m.bitcast(m.shuffle(four, four, {lane, lane, lane, lane}), byteLanes);
  }

  Value dotQuads(ArrayRef<Value> weights, ArrayRef<Value> token) {
    Value dot = m.zero(wordLanes);
    for (auto [word, bytes] : llvm::enumerate(weights))
      dot = m.intrinsic("llvm.aarch64.neon.sdot", wordLanes, {dot, bytes, broadcastWord(token, word)});
    return dot;
  }

  /// smmla takes two rows of eight bytes: of rows 0 and 1, then 2 and 3, against both tokens.
  SmallVector<Value> dotPair(ArrayRef<Value> weights, ArrayRef<Value> first, ArrayRef<Value> second) {
    static constexpr int64_t low[] = {0, 4, 1, 5}, high[] = {2, 6, 3, 7}, even[] = {0, 2, 4, 6}, odd[] = {1, 3, 5, 7};
    Value upper = m.zero(wordLanes), lower = m.zero(wordLanes); // row 0: both tokens, row 1: both tokens; rows 2 and 3
    auto multiply = [&](Value sum, Value rows, Value tokens) {
      return m.intrinsic("llvm.aarch64.neon.smmla", wordLanes,
                         {sum, m.bitcast(rows, byteLanes), m.bitcast(tokens, byteLanes)});
    };
    for (size_t word = 0; word < weights.size(); word += 2) {
      Value a = m.bitcast(weights[word], wordLanes), b = m.bitcast(weights[word + 1], wordLanes);
      int64_t lane = static_cast<int64_t>(word % 4);
      Value tokens = m.shuffle(first[word / 4], second[word / 4], {lane, lane + 1, lane + 4, lane + 5});
      upper = multiply(upper, m.shuffle(a, b, low), tokens);
      lower = multiply(lower, m.shuffle(a, b, high), tokens);
    }
    return {m.shuffle(upper, lower, even), m.shuffle(upper, lower, odd)};
  }

  Value dotShorts(ArrayRef<Value> weights, ArrayRef<Value> token) {
    // Each i16 sums products of one byte: 8 of codes up to 31 fit, 8 * 31 * 127 = 31496, but only 2 of q8,
    // 2 * 128 * 127 = 32512.
    size_t together = format == BlockFormat::q8 ? 2 : kWords;
    auto shorts = m.lanes(8, m.builder.getI16Type());
    Value sums[2], products[2]; // of rows 0 and 1, and of rows 2 and 3: pairs of a row's inputs
    for (auto [word, bytes] : llvm::enumerate(weights)) {
      Value x = broadcastWord(token, word);
      for (int64_t half = 0; half < 2; ++half) {
        Value product =
            m.intrinsic("llvm.aarch64.neon.smull", shorts, {m.slice(bytes, 8 * half, 8), m.slice(x, 8 * half, 8)});
        products[half] = word % together ? m.add(products[half], product) : product;
        if ((word + 1) % together && word + 1 < weights.size())
          continue;
        Value pairs = m.intrinsic("llvm.aarch64.neon.saddlp", wordLanes, {products[half]});
        sums[half] = sums[half] ? m.add(sums[half], pairs) : pairs;
      }
    }
    return m.intrinsic("llvm.aarch64.neon.addp", wordLanes, {sums[0], sums[1]});
  }
};

} // namespace

std::unique_ptr<GroupDots> createNeonDots(Machine &machine, BlockFormat format) {
  return std::make_unique<NeonDots>(machine, format);
}

} // namespace freeport::cpu
