// The integer core of span_dot for aarch64, where both operands of a product of bytes are signed. Four rows make a
// strip, a register of 32-bit sums.
#include "backends/cpu/compiler/GroupDots.h"

using namespace mlir;

namespace freeport::cpu {
namespace {

using kernel::BlockFormat;

class NeonDots : public GroupDots {
public:
  NeonDots(Machine &machine, BlockFormat format)
      : GroupDots(machine, format, machine.profile.productLanes,
                  machine.profile.products == ByteProducts::smlal ? 4 : 8) {}

  SmallVector<Value> dots(const Strip &strip, ArrayRef<Value> codes, ArrayRef<Value> sums) override {
    SmallVector<Value> dots;
    if (format == BlockFormat::q6_k) {
      // Its scales need the halves of a group apart, for which a token has no sums: `signedBytes` subtracts.
      SmallVector<Value> low = dotBlocks(strip, 0, 1, codes), high = dotBlocks(strip, 1, 2, codes);
      for (auto [a, b] : llvm::zip(low, high))
        dots.push_back(m.add(m.multiply(strip.scales[0], a), m.multiply(strip.scales[1], b)));
      return dots;
    }
    dots = dotBlocks(strip, 0, 2, codes);
    for (auto [dot, sum] : llvm::zip(dots, sums)) {
      if (zeroPoint())
        dot = m.create<arith::SubIOp>(dot, splatWord(sum, zeroPoint()));
      if (strip.scales[0])
        dot = m.multiply(strip.scales[0], dot);
    }
    return dots;
  }

private:
  Value signedBytes(const Strip &strip, int64_t word) {
    Value stored = bytes(strip, word);
    if (format != BlockFormat::q6_k)
      return stored;
    return m.create<arith::SubIOp>(stored, m.splatConstant(byteLanes, zeroPoint()));
  }

  /// Sums of products over blocks of 16 inputs, one register of a token. Weights stay in registers for one block, the
  /// sums of all tokens for all of them.
  SmallVector<Value> dotBlocks(const Strip &strip, int64_t first, int64_t last, ArrayRef<Value> codes) {
    size_t pairs = m.profile.products == ByteProducts::smmla ? codes.size() / 2 : 0;
    SmallVector<Sums> sums(codes.size());
    for (int64_t block = first; block < last; ++block) {
      SmallVector<Value> weights;
      for (int64_t word = 4 * block; word < 4 * block + 4; ++word)
        weights.push_back(signedBytes(strip, word));
      SmallVector<Value> rows = pairs ? pairRows(weights) : SmallVector<Value>();
      auto load = [&](size_t token) { return m.load(wordLanes, m.address(codes[token], 16 * block)); };
      for (size_t pair = 0; pair < pairs; ++pair)
        addPair(sums[2 * pair], rows, load(2 * pair), load(2 * pair + 1));
      for (size_t token = 2 * pairs; token < codes.size(); ++token) {
        if (m.profile.products == ByteProducts::smlal)
          addShorts(sums[token], weights, load(token));
        else
          addQuads(sums[token], weights, load(token));
      }
    }
    SmallVector<Value> dots;
    for (size_t pair = 0; pair < pairs; ++pair) {
      Value upper = sums[2 * pair].words[0], lower = sums[2 * pair].words[1];
      dots.push_back(m.shuffle(upper, lower, {0, 2, 4, 6}));
      dots.push_back(m.shuffle(upper, lower, {1, 3, 5, 7}));
    }
    for (size_t token = 2 * pairs; token < codes.size(); ++token)
      dots.push_back(m.profile.products == ByteProducts::smlal ? endShorts(sums[token]) : sums[token].words[0]);
    return dots;
  }

  /// What has been added up, null at first. smmla keeps the sums of a pair of tokens in those of its first.
  struct Sums {
    Value words[2];
    Value shorts[2];
    int64_t products = 0; ///< that each i16 holds
  };

  /// The word in each lane, as bytes.
  Value broadcastWord(Value token, int64_t word) {
    return m.bitcast(m.shuffle(token, token, {word, word, word, word}), byteLanes);
  }

  void addQuads(Sums &sums, ArrayRef<Value> weights, Value token) {
    for (auto [word, bytes] : llvm::enumerate(weights)) {
      Value before = sums.words[0] ? sums.words[0] : m.zero(wordLanes);
      sums.words[0] = m.intrinsic("llvm.aarch64.neon.sdot", wordLanes,
                                  {before, bytes, broadcastWord(token, static_cast<int64_t>(word))});
    }
  }

  /// smmla takes two rows of eight bytes: of each two words, rows 0 and 1, then 2 and 3.
  SmallVector<Value> pairRows(ArrayRef<Value> weights) {
    SmallVector<Value> rows;
    for (size_t word = 0; word < weights.size(); word += 2) {
      Value a = m.bitcast(weights[word], wordLanes), b = m.bitcast(weights[word + 1], wordLanes);
      rows.push_back(m.bitcast(m.shuffle(a, b, {0, 4, 1, 5}), byteLanes));
      rows.push_back(m.bitcast(m.shuffle(a, b, {2, 6, 3, 7}), byteLanes));
    }
    return rows;
  }

  /// A sum is of row 0 with both tokens, then row 1 with both; the other of rows 2 and 3.
  void addPair(Sums &sums, ArrayRef<Value> rows, Value first, Value second) {
    for (auto [number, bytes] : llvm::enumerate(rows)) {
      int64_t lane = number / 2 * 2;
      Value tokens = m.bitcast(m.shuffle(first, second, {lane, lane + 1, lane + 4, lane + 5}), byteLanes);
      Value &sum = sums.words[number % 2];
      sum = m.intrinsic("llvm.aarch64.neon.smmla", wordLanes, {sum ? sum : m.zero(wordLanes), bytes, tokens});
    }
  }

  void addShorts(Sums &sums, ArrayRef<Value> weights, Value token) {
    // Each i16 sums products of one byte: 8 of codes up to 31 fit, 8 * 31 * 127 = 31496, but only 2 of q8,
    // 2 * 128 * 127 = 32512.
    int64_t together = format == BlockFormat::q8 ? 2 : 8;
    auto shorts = m.lanes(8, m.builder.getI16Type());
    for (auto [word, bytes] : llvm::enumerate(weights)) {
      if (sums.products == together)
        widenShorts(sums);
      Value x = broadcastWord(token, static_cast<int64_t>(word));
      for (int64_t half = 0; half < 2; ++half) {
        Value &sum = sums.shorts[half];
        Value product =
            m.intrinsic("llvm.aarch64.neon.smull", shorts, {m.slice(bytes, 8 * half, 8), m.slice(x, 8 * half, 8)});
        sum = sum ? m.add(sum, product) : product;
      }
      ++sums.products;
    }
  }

  /// Moves the sums of i16 to those of i32, of which each holds half a row: rows 0 and 1, then 2 and 3.
  void widenShorts(Sums &sums) {
    for (int64_t half = 0; half < 2; ++half) {
      Value pairs = m.intrinsic("llvm.aarch64.neon.saddlp", wordLanes, {sums.shorts[half]});
      sums.words[half] = sums.words[half] ? m.add(sums.words[half], pairs) : pairs;
      sums.shorts[half] = Value();
    }
    sums.products = 0;
  }

  Value endShorts(Sums &sums) {
    widenShorts(sums);
    return m.intrinsic("llvm.aarch64.neon.addp", wordLanes, {sums.words[0], sums.words[1]});
  }
};

} // namespace

std::unique_ptr<GroupDots> createNeonDots(Machine &machine, BlockFormat format) {
  return std::make_unique<NeonDots>(machine, format);
}

} // namespace freeport::cpu
