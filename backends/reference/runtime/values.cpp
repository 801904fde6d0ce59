// Control flow, and instructions that move values between registers or make them from nothing.
#include "backends/reference/runtime/program.h"

#include <algorithm>

namespace freeport::reference {
namespace {

using bytecode::ElementType;
using bytecode::Opcode;

template <typename T> void loop(const Step &step, Frame &frame) {
  T lower = *frame.at<T>(step.operands[0]), upper = *frame.at<T>(step.operands[1]);
  *frame.at<T>(step.result) = lower;
  if (lower >= upper)
    frame.next = static_cast<size_t>(step.immediate);
}

template <typename T> void next(const Step &step, Frame &frame) {
  T *counter = frame.at<T>(step.result);
  T upper = *frame.at<T>(step.operands[0]), stride = *frame.at<T>(step.operands[1]);
  // No sum that could overflow, and no loop without end: a stride below one leaves.
  using Unsigned = std::make_unsigned_t<T>;
  if (stride < 1 || *counter >= upper ||
      static_cast<Unsigned>(upper) - static_cast<Unsigned>(*counter) <= static_cast<Unsigned>(stride))
    return;
  *counter += stride;
  frame.next = static_cast<size_t>(step.immediate);
}

void branch_unless(const Step &step, Frame &frame) {
  if (!*frame.at<uint8_t>(step.operands[0]))
    frame.next = static_cast<size_t>(step.immediate);
}

void jump(const Step &step, Frame &frame) { frame.next = static_cast<size_t>(step.immediate); }

void finish(const Step &, Frame &frame) { frame.next = frame.program->steps.size(); }

/// Where a part of `part` elements begins in `whole` elements; an offset that does not fit is moved to the nearest that
/// does.
int64_t part_offset(const Step &step, const Frame &frame, uint32_t operand, uint32_t part, uint32_t whole) {
  int64_t offset = step.immediate;
  if (operand != kAbsent)
    offset += std::clamp<int64_t>(*frame.at<int64_t>(operand), 0, whole);
  return std::clamp<int64_t>(offset, 0, whole - part) * step.detail;
}

void extract(const Step &step, Frame &frame) {
  int64_t offset = part_offset(step, frame, step.operands[1], step.count, step.other);
  memmove(frame.registers + step.result, frame.registers + step.operands[0] + offset, size_t(step.detail) * step.count);
}

void insert(const Step &step, Frame &frame) {
  int64_t offset = part_offset(step, frame, step.operands[2], step.other, step.count);
  memmove(frame.registers + step.result, frame.registers + step.operands[1], size_t(step.detail) * step.count);
  memmove(frame.registers + step.result + offset, frame.registers + step.operands[0], size_t(step.detail) * step.other);
}

void tile(const Step &step, Frame &frame) {
  size_t bytes = size_t(step.detail) * step.other;
  for (uint32_t done = 0; done < step.count; done += step.other)
    memmove(frame.registers + step.result + size_t(step.detail) * done, frame.registers + step.operands[0], bytes);
}

void program_id(const Step &step, Frame &frame) { *frame.at<int64_t>(step.result) = frame.place[step.detail]; }

void lane_id(const Step &step, Frame &frame) {
  for (int32_t lane = 0; lane < 32; ++lane)
    frame.at<int32_t>(step.result)[lane] = lane;
}

} // namespace

Handler value_handler(Opcode opcode, ElementType element) {
  bool wide = element == ElementType::i64, counts = wide || element == ElementType::i32;
  switch (opcode) {
  case Opcode::loop:
    return wide ? loop<int64_t> : counts ? loop<int32_t> : nullptr;
  case Opcode::next:
    return wide ? next<int64_t> : counts ? next<int32_t> : nullptr;
  case Opcode::branch_unless:
    return branch_unless;
  case Opcode::jump:
    return jump;
  case Opcode::finish:
    return finish;
  case Opcode::extract:
    return extract;
  case Opcode::insert:
    return insert;
  case Opcode::tile:
    return tile;
  case Opcode::program_id:
    return wide ? program_id : nullptr;
  case Opcode::lane_id:
    return element == ElementType::i32 ? lane_id : nullptr;
  default:
    return nullptr;
  }
}

} // namespace freeport::reference
