// A kernel as the interpreter runs it: every register is a place in one register file, every instruction a function
// that was chosen, together with all of its checks, when the bytecode was decoded.
#pragma once

#include "backends/reference/bytecode_generated.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace freeport::reference {

struct Step;
struct Frame;
using Handler = void (*)(const Step &step, Frame &frame);

/// In place of an operand that is absent.
constexpr uint32_t kAbsent = UINT32_MAX;

/// An instruction. `result`, `operands` and the program's lists hold byte offsets into the register file.
struct Step {
  Handler run = nullptr;
  uint32_t result = 0;
  uint32_t operands[4] = {kAbsent, kAbsent, kAbsent, kAbsent};
  uint32_t count = 0; ///< elements of the result
  uint32_t other = 0; ///< a second count, as the handlers below say
  uint32_t memory[2] = {0, 0};
  uint32_t list = 0; ///< span_dot: where row blocks, then tokens, begin in Program.lists; store_group: the sum
  uint32_t detail = 0;
  int64_t immediate = 0;
};

inline bool is_quantized(bytecode::BlockFormat format) { return format >= bytecode::BlockFormat::q8; }

struct Memory {
  bytecode::MemoryKind kind = bytecode::MemoryKind::buffer;
  bytecode::ElementType element = bytecode::ElementType::f32;
  bytecode::BlockFormat format = bytecode::BlockFormat::f32;
  int64_t elements = 0, local_offset = 0; ///< local memory; the offset in bytes
  int64_t entries = 0, rows = 0, inputs = 0, entry_stride = 0;
  int64_t groups = 0, row_blocks = 0, record_bytes = 0; ///< weights
  int64_t token_bytes = 0;                              ///< activations
};

/// `data` fills `count` elements from byte `offset` of the register file on: it is one element, or all of them.
struct Constant {
  uint32_t offset = 0, count = 0;
  std::vector<std::byte> data;
};

struct Program {
  std::string name;
  uint32_t arguments = 0; ///< of the memories, the first so many
  std::vector<Memory> memories;
  std::vector<Constant> constants;
  std::vector<uint32_t> scalar_offsets;
  std::vector<uint32_t> lists;
  std::vector<Step> steps;
  int64_t register_bytes = 0, local_bytes = 0;
};

/// Where a memory begins and how many bytes from there on may be read and written: at least 0, so that a difference of
/// such a number and a size cannot overflow.
struct Extent {
  std::byte *base = nullptr;
  int64_t readable = 0, writable = 0;
};

/// One thread's state while it runs a program.
struct Frame {
  const Program *program = nullptr;
  std::byte *registers = nullptr;
  const Extent *memories = nullptr;
  int64_t place[3] = {0, 0, 0};
  size_t next = 0;

  template <typename T> T *at(uint32_t offset) const { return reinterpret_cast<T *>(registers + offset); }
};

/// Bytes of one element in a register and in memory.
inline uint32_t element_bytes(bytecode::ElementType element) {
  switch (element) {
  case bytecode::ElementType::i1:
  case bytecode::ElementType::i8:
    return 1;
  case bytecode::ElementType::i16:
  case bytecode::ElementType::f16:
    return 2;
  case bytecode::ElementType::i32:
  case bytecode::ElementType::f32:
    return 4;
  case bytecode::ElementType::i64:
    return 8;
  }
  return 0;
}

/// The function for a control instruction or one that moves values, or null. loop: lower, upper, step; next: upper,
/// step; branch_unless: condition; extract: source, offset; insert: value, destination, offset; tile: source.
/// Step.detail is the bytes of an element, Step.other the elements of source or value.
Handler value_handler(bytecode::Opcode opcode, bytecode::ElementType element);

/// The function for an elementwise `opcode` from operands of `source` to `result`, or null if there is none. Operands:
/// a, b; for select condition, a, b. Step.other is 1 for a uniform condition; for copy and bitcast it is the bytes to
/// move.
Handler elementwise_handler(bytecode::Opcode opcode, bytecode::ElementType source, bytecode::ElementType result);

/// The function for a memory `opcode` on elements of `element`, or null. Operands: value, base, offsets, mask, each
/// perhaps absent; stage: base, with Step.detail columns.
Handler memory_handler(bytecode::Opcode opcode, bytecode::ElementType element);

/// The function for reduce, argmax, scan and pick_lane on `element`, or null.
Handler lane_handler(bytecode::Opcode opcode, bytecode::ElementType element);

/// span_dot (operands: span, entry; Step.count row blocks, Step.other tokens), unpack (row, group) and store_group
/// (value, token, group, scale; the sum in Step.list); null for others.
Handler block_handler(bytecode::Opcode opcode);

} // namespace freeport::reference
