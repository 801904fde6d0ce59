// What the architectures share of GroupDots.h: how the bytes of a format come out of its dwords.
#include "backends/cpu/compiler/GroupDots.h"

using namespace mlir;

namespace freeport::cpu {

using kernel::BlockFormat;

GroupDots::GroupDots(Machine &machine, BlockFormat format, int64_t lanes, size_t tokensTogether)
    : lanes(lanes), tokensTogether(tokensTogether), m(machine), format(format),
      byteLanes(machine.lanes(4 * lanes, machine.builder.getI8Type())),
      shortLanes(machine.lanes(2 * lanes, machine.builder.getI16Type())),
      wordLanes(machine.lanes(lanes, machine.builder.getI32Type())) {}

int64_t GroupDots::zeroPoint() const {
  switch (format) {
  case BlockFormat::q4:
    return 8;
  case BlockFormat::q5:
    return 16;
  case BlockFormat::q6_k:
    return 32;
  default:
    return 0;
  }
}

Value GroupDots::bytes(const Strip &strip, int64_t word) {
  if (format == BlockFormat::q8)
    return m.load(byteLanes, m.address(strip.dwords, 128 * word));
  return nibbles(strip, word);
}

Value GroupDots::splatWord(Value pointer, int64_t factor) {
  return m.splat(m.multiply(m.load(m.builder.getI32Type(), pointer), m.i32(factor)), lanes);
}

Value GroupDots::nibbles(const Strip &strip, int64_t word) {
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

} // namespace freeport::cpu
