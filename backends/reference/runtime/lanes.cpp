// Instructions that combine the 32 lanes. The tree is the dialect's: distances 16, 8, 4, 2, 1, all lanes at once.
#include "backends/reference/runtime/program.h"

namespace freeport::reference {
namespace {

using bytecode::ElementType;
using bytecode::Opcode;

constexpr uint32_t kLanes = 32;

template <typename T> T combine(uint32_t kind, T a, T b) {
  if (kind == 1)
    return a > b ? a : b;
  if (kind == 2)
    return a < b ? a : b;
  if constexpr (std::is_same_v<T, int32_t>)
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  else
    return a + b;
}

template <typename T> void reduce(const Step &step, Frame &frame) {
  T lanes[kLanes], previous[kLanes];
  memcpy(lanes, frame.at<T>(step.operands[0]), sizeof(lanes));
  for (uint32_t distance = 16; distance; distance /= 2) {
    memcpy(previous, lanes, sizeof(lanes));
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = combine(step.detail, previous[lane], previous[lane ^ distance]);
  }
  *frame.at<T>(step.result) = lanes[0];
}

void argmax(const Step &step, Frame &frame) {
  struct Candidate {
    float value;
    int32_t index;
    bool beats(const Candidate &other) const {
      return value > other.value || (value == other.value && index < other.index);
    }
  };
  Candidate lanes[kLanes], previous[kLanes];
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    lanes[lane] = {frame.at<float>(step.operands[0])[lane], frame.at<int32_t>(step.operands[1])[lane]};
  for (uint32_t distance = 16; distance; distance /= 2) {
    memcpy(previous, lanes, sizeof(lanes));
    for (uint32_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = previous[lane].beats(previous[lane ^ distance]) ? previous[lane] : previous[lane ^ distance];
  }
  *frame.at<float>(step.result) = lanes[0].value;
  *frame.at<int32_t>(step.operands[2]) = lanes[0].index;
}

void scan(const Step &step, Frame &frame) {
  auto *result = frame.at<uint32_t>(step.result);
  const auto *value = frame.at<uint32_t>(step.operands[0]);
  uint32_t sum = 0;
  for (uint32_t lane = 0; lane < kLanes; ++lane)
    result[lane] = sum += value[lane];
}

void pick_lane(const Step &step, Frame &frame) {
  uint64_t lane = *frame.at<uint64_t>(step.operands[1]) % kLanes;
  *frame.at<uint32_t>(step.result) = frame.at<uint32_t>(step.operands[0])[lane];
}

} // namespace

Handler lane_handler(Opcode opcode, ElementType element) {
  bool number = element == ElementType::f32 || element == ElementType::i32;
  switch (opcode) {
  case Opcode::reduce:
    return element == ElementType::f32 ? reduce<float> : element == ElementType::i32 ? reduce<int32_t> : nullptr;
  case Opcode::argmax:
    return element == ElementType::f32 ? argmax : nullptr;
  case Opcode::scan:
    return element == ElementType::i32 ? scan : nullptr;
  case Opcode::pick_lane:
    return number ? pick_lane : nullptr;
  default:
    return nullptr;
  }
}

} // namespace freeport::reference
