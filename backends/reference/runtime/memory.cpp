// Loads and stores. Local memory has a known size and is never left: what lies outside reads as zero and is not
// written; an argument's size is known to whoever launched the kernel, who vouches for it.
#include "backends/reference/runtime/half.h"
#include "backends/reference/runtime/program.h"

namespace freeport::reference {
namespace {

using bytecode::ElementType;
using bytecode::Opcode;

constexpr uint32_t kLanes = 32;

/// Sums of addresses wrap: a wrapped one is outside of any memory of known size.
int64_t add(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }

template <typename T> struct View {
  std::byte *base;
  int64_t elements;

  View(const Frame &frame, uint32_t memory)
      : base(frame.memories[memory]), elements(frame.program->memories[memory].elements) {}
  bool holds(int64_t index) const { return index >= 0 && index < elements; }
  T read(int64_t index) const {
    T value = 0;
    if (holds(index))
      memcpy(&value, advance(base, index, sizeof(T)), sizeof(T));
    return value;
  }
  void write(int64_t index, T value) const {
    if (holds(index))
      memcpy(advance(base, index, sizeof(T)), &value, sizeof(T));
  }
};

template <typename T> void load(const Step &step, Frame &frame) {
  *frame.at<T>(step.result) = View<T>(frame, step.memory[0]).read(*frame.at<int64_t>(step.operands[1]));
}

template <typename T> void store(const Step &step, Frame &frame) {
  View<T>(frame, step.memory[0]).write(*frame.at<int64_t>(step.operands[1]), *frame.at<T>(step.operands[0]));
}

/// Calls `each` with lane and element index of the lanes that the mask leaves, the others with `skipped`.
template <typename Each, typename Skipped>
void for_lanes(const Step &step, const Frame &frame, Each each, Skipped skipped) {
  int64_t base = *frame.at<int64_t>(step.operands[1]);
  const auto *offsets = step.operands[2] == kAbsent ? nullptr : frame.at<int32_t>(step.operands[2]);
  const auto *mask = step.operands[3] == kAbsent ? nullptr : frame.at<uint8_t>(step.operands[3]);
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    if (mask && !mask[lane])
      skipped(lane);
    else
      each(lane, add(base, offsets ? offsets[lane] : static_cast<int32_t>(lane)));
  }
}

template <typename T> void load_lanes(const Step &step, Frame &frame) {
  View<T> view(frame, step.memory[0]);
  auto *result = frame.at<T>(step.result);
  for_lanes(
      step, frame, [&](uint32_t lane, int64_t index) { result[lane] = view.read(index); },
      [&](uint32_t lane) { result[lane] = 0; });
}

template <typename T> void store_lanes(const Step &step, Frame &frame) {
  View<T> view(frame, step.memory[0]);
  const auto *value = frame.at<T>(step.operands[0]);
  for_lanes(step, frame, [&](uint32_t lane, int64_t index) { view.write(index, value[lane]); }, [](uint32_t) {});
}

template <typename T, auto convert> void stage(const Step &step, Frame &frame) {
  View<T> source(frame, step.memory[0]);
  View<float> target(frame, step.memory[1]);
  int64_t base = *frame.at<int64_t>(step.operands[1]);
  for (int64_t row = 0; row < kLanes; ++row)
    for (int64_t column = 0; column < step.detail; ++column)
      target.write(column * kLanes + row, convert(source.read(add(base, row * step.immediate + column))));
}

template <typename T> Handler of_width(Opcode opcode) {
  switch (opcode) {
  case Opcode::load:
    return load<T>;
  case Opcode::store:
    return store<T>;
  case Opcode::load_lanes:
  case Opcode::gather:
    return load_lanes<T>;
  case Opcode::store_lanes:
  case Opcode::scatter:
    return store_lanes<T>;
  default:
    return nullptr;
  }
}

Handler stage_handler(ElementType element) {
  switch (element) {
  case ElementType::f32:
    return stage<float, [](float value) { return value; }>;
  case ElementType::f16:
    return stage<uint16_t, from_half>;
  case ElementType::i32:
    return stage<int32_t, [](int32_t value) { return static_cast<float>(value); }>;
  case ElementType::i8:
    return stage<int8_t, [](int8_t value) { return static_cast<float>(value); }>;
  default:
    return nullptr;
  }
}

} // namespace

Handler memory_handler(Opcode opcode, ElementType element) {
  if (opcode == Opcode::stage)
    return stage_handler(element);
  switch (element) {
  case ElementType::i8:
    return of_width<uint8_t>(opcode);
  case ElementType::f16:
    return of_width<uint16_t>(opcode);
  case ElementType::i32:
  case ElementType::f32:
    return of_width<uint32_t>(opcode);
  default:
    return nullptr;
  }
}

} // namespace freeport::reference
