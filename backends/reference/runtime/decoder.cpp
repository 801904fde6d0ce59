// Decodes bytecode one function at a time. A check that fails notes the first error and lets the decoder go on with
// harmless stand-ins until the end of the instruction, so that each rule is one line.
#include "backends/reference/runtime/decoder.h"

#include <fmt/format.h>

#include <bit>

namespace freeport::reference {
namespace {

using namespace bytecode;
static_assert(std::endian::native == std::endian::little, "bytecode and weights are little-endian");

constexpr int64_t kQuantum = 32;
constexpr int64_t kLargestDimension = int64_t(1) << 28; // rows x inputs x bytes then fits 64 bits
constexpr int64_t kLargestCount = int64_t(1) << 20;     // elements of a register, entries of a bank
constexpr int64_t kLargestStride = int64_t(1) << 40;
constexpr int64_t kLargestFile = int64_t(16) << 20; // bytes of registers or of local memory of one program

struct Place {
  ElementType element = ElementType::i1;
  uint32_t count = 1, offset = 0;
};

class FunctionDecoder {
public:
  explicit FunctionDecoder(const Function &function) : function_(function) { program_.name = function.name()->str(); }

  Result<Program> decode() {
    // The FlatBuffers verifier aligns a vector's length, not the 64-bit members of the structs behind it.
    where_ = "instructions";
    expect(reinterpret_cast<uintptr_t>(function_.instructions()->Data()) % alignof(Instruction) == 0,
           "instructions that are aligned");
    if (ok())
      decode_memories();
    if (ok())
      decode_registers();
    for (uint32_t number = 0; ok() && number < function_.instructions()->size(); ++number) {
      where_ = fmt::format("instruction {}", number);
      decode_instruction(*function_.instructions()->Get(number));
    }
    if (!ok())
      return Status(Code::kCorrupt, fmt::format("reference bytecode: function '{}', {}", program_.name, error_));
    return std::move(program_);
  }

private:
  bool ok() const { return error_.empty(); }

  bool expect(bool condition, std::string_view expectation) {
    if (!condition && ok())
      error_ = fmt::format("{}: expects {}", where_, expectation);
    return condition;
  }

  //===-- Memories and registers
  //------------------------------------------------------------------------------------===//

  void decode_memories() {
    where_ = "memories";
    uint32_t count = function_.memories()->size();
    program_.arguments = function_.arguments();
    expect(program_.arguments <= count, "no more arguments than memories");
    for (uint32_t number = 0; ok() && number < count; ++number) {
      where_ = fmt::format("memory {}", number);
      program_.memories.push_back(decode_memory(*function_.memories()->Get(number), number < program_.arguments));
    }
  }

  bool within(int64_t value, int64_t least, int64_t most) const { return value >= least && value <= most; }

  reference::Memory decode_memory(const bytecode::Memory &from, bool argument) {
    reference::Memory memory;
    if (!expect(from.kind() <= MemoryKind::MAX && from.element() <= ElementType::MAX &&
                    from.format() <= BlockFormat::MAX,
                "a known kind, element type and format") ||
        !expect(argument || from.kind() == MemoryKind::buffer, "buffers as local memory"))
      return memory;
    memory.kind = from.kind();
    memory.element = from.element();
    memory.format = from.format();
    if (from.kind() == MemoryKind::buffer)
      decode_buffer(from, argument, memory);
    else if (from.kind() == MemoryKind::weights)
      decode_weights(from, memory);
    else
      decode_activations(from, memory);
    return memory;
  }

  void decode_buffer(const bytecode::Memory &from, bool argument, reference::Memory &memory) {
    expect(from.element() == ElementType::f32 || from.element() == ElementType::f16 ||
               from.element() == ElementType::i32 || from.element() == ElementType::i8,
           "a buffer of f32, f16, i32 or i8");
    if (argument || !expect(within(from.elements(), 1, kLargestFile), "1 to 2^24 local elements"))
      return;
    memory.elements = from.elements();
    memory.local_offset = program_.local_bytes;
    program_.local_bytes += (from.elements() * element_bytes(from.element()) + 63) / 64 * 64;
    expect(program_.local_bytes <= kLargestFile, "local memory of at most 16 MiB");
  }

  void decode_weights(const bytecode::Memory &from, reference::Memory &memory) {
    if (!expect(within(from.rows(), 1, kLargestDimension) && within(from.inputs(), 1, kLargestDimension) &&
                    within(from.entries(), -1, kLargestCount),
                "1 to 2^28 rows and inputs and -1 to 2^20 entries"))
      return;
    static constexpr int64_t kRecordBytes[] = {4096, 2048, 2048, 1088, 576, 704, 704, 896};
    memory.entries = from.entries();
    memory.rows = from.rows();
    memory.inputs = from.inputs();
    memory.entry_stride = from.entry_stride();
    memory.groups = (from.inputs() + kQuantum - 1) / kQuantum;
    memory.row_blocks = (from.rows() + kQuantum - 1) / kQuantum;
    memory.record_bytes = kRecordBytes[static_cast<int>(from.format())];
    expect(from.entries() == 0 ||
               within(from.entry_stride(), memory.row_blocks * memory.groups * memory.record_bytes, kLargestStride),
           "entries that do not overlap, at most 2^40 bytes apart");
    if (ok() && from.entries() < 0) // whatever the stride, an entry's place stays below what 2^20 of them reach
      memory.entries = kLargestCount * kLargestStride / from.entry_stride();
  }

  void decode_activations(const bytecode::Memory &from, reference::Memory &memory) {
    if (!expect(from.element() == ElementType::f32 || from.element() == ElementType::i8, "activations of i8 or f32") ||
        !expect(within(from.inputs(), 1, kLargestDimension), "a width of 1 to 2^28"))
      return;
    memory.inputs = from.inputs();
    memory.groups = (from.inputs() + kQuantum - 1) / kQuantum;
    memory.token_bytes = ((from.element() == ElementType::i8 ? 40 : 128) * memory.groups + 63) / 64 * 64;
  }

  void decode_registers() {
    where_ = "registers";
    int64_t bytes = 0;
    for (const Register *each : *function_.registers()) {
      if (!expect(each->element() <= ElementType::MAX && within(each->count(), 1, kLargestCount),
                  "a known element type and a count of 1 to 2^20"))
        return;
      int64_t alignment = each->count() == 1 ? 8 : 64;
      bytes = (bytes + alignment - 1) / alignment * alignment;
      places_.push_back({each->element(), each->count(), static_cast<uint32_t>(bytes)});
      bytes += int64_t(element_bytes(each->element())) * each->count();
      if (!expect(bytes <= kLargestFile, "registers of at most 16 MiB"))
        return;
    }
    program_.register_bytes = bytes;
    if (!expect(function_.scalars() <= places_.size(), "a register for each scalar"))
      return;
    for (uint32_t number = 0; number < function_.scalars(); ++number) {
      expect(is(places_[number], ElementType::i64, 1), "scalars in registers of one i64");
      program_.scalar_offsets.push_back(places_[number].offset);
    }
    for (const bytecode::Constant *each : *function_.constants())
      decode_constant(*each);
  }

  void decode_constant(const bytecode::Constant &from) {
    if (!expect(from.register_() < places_.size(), "a constant's register to exist"))
      return;
    const Place &place = places_[from.register_()];
    size_t width = element_bytes(place.element), size = from.data()->size();
    if (!expect(size == width || size == width * place.count, "a constant of one element or of all"))
      return;
    const auto *data = reinterpret_cast<const std::byte *>(from.data()->data());
    reference::Constant constant{place.offset, size == width ? place.count : 1, {data, data + size}};
    if (place.element == ElementType::i1)
      for (std::byte &each : constant.data)
        each &= std::byte(1);
    program_.constants.push_back(std::move(constant));
  }

  //===-- Operands
  //--------------------------------------------------------------------------------------------------===//

  static bool is(const Place &place, ElementType element, uint32_t count) {
    return place.element == element && place.count == count;
  }

  /// Number `index` among the operands.
  uint32_t number(uint32_t index) {
    if (!expect(index < operand_count_, "more operands"))
      return 0;
    return function_.operands()->Get(first_operand_ + index);
  }

  const Place &place(uint32_t number) {
    static const Place none;
    return expect(number < places_.size(), "the number of a register") ? places_[number] : none;
  }

  const Place &operand(uint32_t index) { return place(number(index)); }

  /// Operand `index` as a register of exactly this type; its place in the file.
  uint32_t typed(uint32_t index, ElementType element, uint32_t count) {
    const Place &found = operand(index);
    expect(is(found, element, count),
           fmt::format("{} of {} as operand {}", count, EnumNameElementType(element), index));
    return found.offset;
  }

  uint32_t scalar(uint32_t index) { return typed(index, ElementType::i64, 1); }

  uint32_t memory(uint32_t index, MemoryKind kind) {
    uint32_t found = number(index);
    expect(found < program_.memories.size() && program_.memories[found].kind == kind,
           fmt::format("{} as operand {}", EnumNameMemoryKind(kind), index));
    return ok() ? found : 0;
  }

  void operands(uint32_t least, uint32_t most) {
    expect(operand_count_ >= least && operand_count_ <= most,
           fmt::format("{} to {} operands, got {}", least, most, operand_count_));
  }

  //===-- Instructions
  //----------------------------------------------------------------------------------------------===//

  void decode_instruction(const Instruction &from) {
    first_operand_ = from.operands();
    operand_count_ = from.operand_count();
    if (!expect(from.opcode() <= Opcode::MAX, "a known opcode") ||
        !expect(uint64_t(first_operand_) + operand_count_ <= function_.operands()->size(), "operands in the list"))
      return;
    where_ += fmt::format(" ({})", EnumNameOpcode(from.opcode()));
    Step step;
    step.detail = from.detail();
    step.immediate = from.immediate();
    all_operands_ += operand_count_;
    expect(all_operands_ <= function_.operands()->size(), "operands that no other instruction uses");
    decode_step(from, step);
    expect(!ok() || step.run, "operands and a result that the instruction is for");
    program_.steps.push_back(step);
  }

  void decode_step(const Instruction &from, Step &step) {
    switch (from.opcode()) {
    case Opcode::loop:
    case Opcode::next:
    case Opcode::branch_unless:
    case Opcode::jump:
    case Opcode::finish:
      return decode_control(from, step);
    case Opcode::extract:
    case Opcode::insert:
    case Opcode::tile:
    case Opcode::program_id:
    case Opcode::lane_id:
      return decode_value(from, step);
    case Opcode::load:
    case Opcode::load_lanes:
    case Opcode::gather:
    case Opcode::store:
    case Opcode::store_lanes:
    case Opcode::scatter:
      return decode_access(from, step);
    case Opcode::stage:
      return decode_stage(from, step);
    case Opcode::store_group:
      return decode_store_group(from, step);
    case Opcode::reduce:
    case Opcode::argmax:
    case Opcode::scan:
    case Opcode::pick_lane:
      return decode_lanes(from, step);
    case Opcode::span_dot:
      return decode_span_dot(from, step);
    case Opcode::unpack:
      return decode_unpack(from, step);
    default:
      return decode_elementwise(from, step);
    }
  }

  const Place &result(const Instruction &from, Step &step) {
    const Place &found = place(from.result());
    step.result = found.offset;
    step.count = found.count;
    return found;
  }

  void decode_control(const Instruction &from, Step &step) {
    if (from.opcode() != Opcode::finish)
      expect(within(step.immediate, 0, function_.instructions()->size()), "a target in the function");
    ElementType element = ElementType::i1;
    uint32_t count = from.opcode() == Opcode::loop ? 3 : from.opcode() == Opcode::next ? 2 : 0;
    if (count) {
      const Place &counter = result(from, step);
      element = counter.element;
      operands(count, count);
      for (uint32_t index = 0; index < count; ++index)
        step.operands[index] = typed(index, element, 1);
      expect(counter.count == 1, "a uniform counter");
    } else if (from.opcode() == Opcode::branch_unless) {
      operands(1, 1);
      step.operands[0] = typed(0, ElementType::i1, 1);
    }
    step.run = value_handler(from.opcode(), element);
  }

  void decode_value(const Instruction &from, Step &step) {
    const Place &to = result(from, step);
    step.run = value_handler(from.opcode(), to.element);
    if (from.opcode() == Opcode::program_id) {
      expect(to.count == 1 && step.detail < 3, "a uniform result and a dimension of 0 to 2");
      return;
    }
    if (from.opcode() == Opcode::lane_id) {
      expect(to.count == kQuantum, "32 lanes");
      return;
    }
    bool insert = from.opcode() == Opcode::insert, tile = from.opcode() == Opcode::tile;
    operands(1 + insert, tile ? 1 : 2 + insert);
    const Place &source = operand(0);
    expect(source.element == to.element, "one element type");
    step.detail = element_bytes(to.element);
    step.other = source.count;
    step.operands[0] = source.offset;
    if (tile) {
      expect(to.count % source.count == 0, "a result of whole copies of the source");
      return;
    }
    if (insert)
      step.operands[1] = typed(1, to.element, to.count);
    if (operand_count_ > 1u + insert)
      step.operands[1 + insert] = scalar(1 + insert);
    int64_t part = insert ? source.count : to.count, whole = insert ? to.count : source.count;
    expect(part <= whole && within(step.immediate, 0, whole - part), "a part inside the whole");
  }

  void decode_elementwise(const Instruction &from, Step &step) {
    const Place &to = result(from, step);
    bool choose = from.opcode() == Opcode::select;
    uint32_t count = choose ? 3 : is_binary(from.opcode()) ? 2 : 1;
    operands(count, count);
    const Place &source = operand(choose);
    for (uint32_t index = choose; index < count; ++index)
      step.operands[index] = typed(index, source.element, to.count);
    if (choose) {
      const Place &condition = operand(0);
      expect(condition.element == ElementType::i1 && (condition.count == 1 || condition.count == to.count),
             "a condition of one i1 or one for each element");
      step.operands[0] = condition.offset;
      step.other = condition.count;
    } else {
      step.other = element_bytes(to.element) * to.count;
    }
    if (from.opcode() == Opcode::compare_integer)
      expect(step.detail < 10, "a predicate of 0 to 9");
    if (from.opcode() == Opcode::compare_float)
      expect(step.detail < 16, "a predicate of 0 to 15");
    step.run = elementwise_handler(from.opcode(), source.element, to.element);
  }

  static bool is_binary(Opcode opcode) {
    return (opcode >= Opcode::add_integer && opcode <= Opcode::divide_float) || opcode == Opcode::compare_float;
  }

  void decode_access(const Instruction &from, Step &step) {
    Opcode opcode = from.opcode();
    bool stores = opcode == Opcode::store || opcode == Opcode::store_lanes || opcode == Opcode::scatter;
    bool uniform = opcode == Opcode::store || opcode == Opcode::load;
    bool offsets = opcode == Opcode::gather || opcode == Opcode::scatter;
    uint32_t needed = 2 + stores + offsets;
    operands(needed, needed + !uniform);
    step.memory[0] = memory(stores, MemoryKind::buffer);
    if (!ok())
      return;
    ElementType element = program_.memories[step.memory[0]].element;
    uint32_t lanes = uniform ? 1 : kQuantum;
    if (stores)
      step.operands[0] = typed(0, element, lanes);
    else
      expect(is(result(from, step), element, lanes), "a result of the buffer's element type");
    step.operands[1] = scalar(1 + stores);
    if (offsets)
      step.operands[2] = typed(2 + stores, ElementType::i32, kQuantum);
    if (operand_count_ > needed)
      step.operands[3] = typed(needed, ElementType::i1, kQuantum);
    step.run = memory_handler(opcode, element);
  }

  void decode_stage(const Instruction &from, Step &step) {
    operands(4, 4);
    step.memory[0] = memory(0, MemoryKind::buffer);
    step.operands[1] = scalar(1);
    step.memory[1] = memory(2, MemoryKind::buffer);
    step.detail = number(3);
    if (!ok())
      return;
    const reference::Memory &target = program_.memories[step.memory[1]];
    expect(step.memory[1] >= program_.arguments && target.element == ElementType::f32 &&
               int64_t(step.detail) <= target.elements / kQuantum,
           "a local target of f32 that holds all columns");
    expect(within(step.immediate, 1, kLargestStride), "a pitch of 1 to 2^40");
    step.run = memory_handler(from.opcode(), program_.memories[step.memory[0]].element);
  }

  void decode_store_group(const Instruction &from, Step &step) {
    operands(4, 6);
    step.memory[0] = memory(1, MemoryKind::activations);
    if (!ok())
      return;
    ElementType element = program_.memories[step.memory[0]].element;
    step.operands[0] = typed(0, element, kQuantum);
    step.operands[1] = scalar(2);
    step.operands[2] = scalar(3);
    if (element == ElementType::i8) {
      operands(6, 6);
      step.operands[3] = typed(4, ElementType::f32, 1);
      step.list = typed(5, ElementType::i32, 1);
    } else {
      operands(4, 4);
    }
    step.run = block_handler(from.opcode());
  }

  void decode_lanes(const Instruction &from, Step &step) {
    const Place &to = result(from, step);
    bool whole = from.opcode() == Opcode::scan;
    step.operands[0] = typed(0, to.element, kQuantum);
    expect(to.count == (whole ? kQuantum : 1), whole ? "32 lanes" : "a uniform result");
    if (from.opcode() == Opcode::argmax) {
      operands(3, 3);
      step.operands[1] = typed(1, ElementType::i32, kQuantum);
      step.operands[2] = typed(2, ElementType::i32, 1);
    } else if (from.opcode() == Opcode::pick_lane) {
      operands(2, 2);
      step.operands[1] = scalar(1);
    } else {
      operands(1, 1);
      expect(from.opcode() == Opcode::scan || step.detail < 3, "a kind of 0 to 2");
    }
    step.run = lane_handler(from.opcode(), to.element);
  }

  void decode_span_dot(const Instruction &from, Step &step) {
    step.memory[0] = memory(0, MemoryKind::weights);
    step.memory[1] = memory(1, MemoryKind::activations);
    step.operands[0] = scalar(2);
    if (!ok())
      return;
    const reference::Memory &weights = program_.memories[step.memory[0]],
                            &activations = program_.memories[step.memory[1]];
    expect((activations.element == ElementType::i8) == is_quantized(weights.format),
           "i8 activations exactly for quantised weights");
    expect(activations.inputs == weights.inputs, "activations as wide as the weights' inputs");
    uint32_t first = 3 + (weights.entries > 0);
    if (weights.entries > 0)
      step.operands[1] = scalar(3);
    if (!expect(operand_count_ > first && within(step.immediate, 1, operand_count_ - first - 1),
                "row blocks and tokens"))
      return;
    const Place &to = result(from, step);
    step.count = static_cast<uint32_t>(step.immediate);
    step.other = operand_count_ - first - step.count;
    expect(to.element == ElementType::f32 && to.count == uint64_t(step.count) * step.other * kQuantum,
           "a result of f32 for each row block, token and lane");
    step.list = static_cast<uint32_t>(program_.lists.size());
    for (uint32_t index = first; ok() && index < operand_count_; ++index)
      program_.lists.push_back(scalar(index));
    step.run = block_handler(from.opcode());
  }

  void decode_unpack(const Instruction &from, Step &step) {
    operands(3, 3);
    step.memory[0] = memory(0, MemoryKind::weights);
    step.operands[0] = scalar(1);
    step.operands[1] = scalar(2);
    expect(is(result(from, step), ElementType::f32, kQuantum), "a result of 32 f32");
    if (ok())
      expect(program_.memories[step.memory[0]].entries == 0, "a matrix, not a bank");
    step.run = block_handler(from.opcode());
  }

  const Function &function_;
  Program program_;
  std::vector<Place> places_;
  std::string where_, error_;
  uint32_t first_operand_ = 0, operand_count_ = 0;
  uint64_t all_operands_ = 0;
};

/// Bytes that `function` takes at least in a file where no two tables share a vector or a table.
uint64_t unshared_bytes(const Function &function) {
  constexpr uint64_t kTable = 8; // a field and the offset of its layout
  uint64_t bytes = kTable + function.name()->size() + uint64_t(function.registers()->size()) * sizeof(Register) +
                   function.memories()->size() * kTable + function.operands()->size() * sizeof(uint32_t) +
                   function.instructions()->size() * sizeof(Instruction);
  for (const bytecode::Constant *each : *function.constants())
    bytes += kTable + each->data()->size();
  return bytes;
}

/// Decodes all functions of a verified module of `size` bytes.
Result<std::vector<Program>> decode_module(const Module &module, uint64_t size) {
  // A file that refers to the same bytes again and again would grow without bound when it is decoded.
  uint64_t bytes = 0;
  for (const Function *function : *module.functions())
    if (bytes += unshared_bytes(*function); bytes > size)
      return Status(Code::kCorrupt,
                    fmt::format("reference bytecode: expects functions that share nothing, got more than "
                                "{} bytes of them",
                                size));
  std::vector<Program> programs;
  for (const Function *function : *module.functions()) {
    FP_ASSIGN_OR_RETURN(Program program, FunctionDecoder(*function).decode());
    programs.push_back(std::move(program));
  }
  return programs;
}

} // namespace

Result<std::vector<Program>> decode(std::span<const std::byte> content, uint32_t version) {
  if (version != static_cast<uint32_t>(Version::current))
    return Status(Code::kUnsupported,
                  fmt::format("reference bytecode: expects version {}, got {}; compile the package with this build",
                              static_cast<uint32_t>(Version::current), version));
  // FlatBuffers reads in place and wants its alignment; what is decoded does not refer to the content.
  std::vector<uint64_t> aligned;
  const auto *data = reinterpret_cast<const uint8_t *>(content.data());
  if (reinterpret_cast<uintptr_t>(data) % alignof(uint64_t)) {
    aligned.resize(content.size() / sizeof(uint64_t) + 1);
    memcpy(aligned.data(), data, content.size());
    data = reinterpret_cast<const uint8_t *>(aligned.data());
  }
  constexpr flatbuffers::uoffset_t kTables = 1u << 24;
  flatbuffers::Verifier verifier(data, content.size(), /*max_depth=*/8, kTables);
  if (content.size() < 8 || content.size() >= FLATBUFFERS_MAX_BUFFER_SIZE || !VerifyModuleBuffer(verifier))
    return Status(Code::kCorrupt,
                  "reference bytecode: expects a FlatBuffer of bytecode.fbs; compile the package again");
  return decode_module(*GetModule(data), content.size());
}

} // namespace freeport::reference
