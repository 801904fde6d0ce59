// Loads and stores. No memory is ever left: an element that does not lie wholly inside reads as zero and is not
// written.
#include "backends/reference/runtime/half.h"
#include "backends/reference/runtime/program.h"

namespace freeport::reference {
namespace {

using bytecode::ElementType;
using bytecode::Opcode;

constexpr uint32_t kLanes = 32;

/// Sums of addresses wrap: a wrapped one is outside of any memory of known size.
int64_t add(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }

/// The elements of a memory that may be read, or those that may be written; there may be none.
template <typename T> struct View {
  std::byte *base;
  uint64_t elements;

  View(std::byte *base, int64_t bytes) : base(base), elements(static_cast<uint64_t>(bytes) / sizeof(T)) {}
  static View readable(const Frame &frame, uint32_t memory) {
    return {frame.memories[memory].base, frame.memories[memory].readable};
  }
  static View writable(const Frame &frame, uint32_t memory) {
    return {frame.memories[memory].base, frame.memories[memory].writable};
  }

  /// A negative index is larger than any count when it is unsigned.
  bool holds(int64_t index) const { return static_cast<uint64_t>(index) < elements; }
  bool holds_lanes(int64_t first) const {
    return elements >= kLanes && static_cast<uint64_t>(first) <= elements - kLanes;
  }
  std::byte *at(int64_t index) const { return base + static_cast<uint64_t>(index) * sizeof(T); }
  T read(int64_t index) const {
    T value = 0;
    if (holds(index))
      memcpy(&value, at(index), sizeof(T));
    return value;
  }
  void write(int64_t index, T value) const {
    if (holds(index))
      memcpy(at(index), &value, sizeof(T));
  }
};

template <typename T> void load(const Step &step, Frame &frame) {
  *frame.at<T>(step.result) = View<T>::readable(frame, step.memory[0]).read(*frame.at<int64_t>(step.operands[1]));
}

template <typename T> void store(const Step &step, Frame &frame) {
  View<T>::writable(frame, step.memory[0]).write(*frame.at<int64_t>(step.operands[1]), *frame.at<T>(step.operands[0]));
}

/// Whether all lanes take part, each with its own element.
bool is_whole_run(const Step &step) { return step.operands[2] == kAbsent && step.operands[3] == kAbsent; }

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
  auto view = View<T>::readable(frame, step.memory[0]);
  auto *result = frame.at<T>(step.result);
  if (int64_t base = *frame.at<int64_t>(step.operands[1]); is_whole_run(step) && view.holds_lanes(base)) {
    memcpy(result, view.at(base), kLanes * sizeof(T));
    return;
  }
  for_lanes(
      step, frame, [&](uint32_t lane, int64_t index) { result[lane] = view.read(index); },
      [&](uint32_t lane) { result[lane] = 0; });
}

template <typename T> void store_lanes(const Step &step, Frame &frame) {
  auto view = View<T>::writable(frame, step.memory[0]);
  const auto *value = frame.at<T>(step.operands[0]);
  if (int64_t base = *frame.at<int64_t>(step.operands[1]); is_whole_run(step) && view.holds_lanes(base)) {
    memcpy(view.at(base), value, kLanes * sizeof(T));
    return;
  }
  for_lanes(step, frame, [&](uint32_t lane, int64_t index) { view.write(index, value[lane]); }, [](uint32_t) {});
}

template <typename T, auto convert> void stage(const Step &step, Frame &frame) {
  auto source = View<T>::readable(frame, step.memory[0]);
  auto target = View<float>::writable(frame, step.memory[1]);
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
