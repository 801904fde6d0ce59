// From the manifest's tables to the device's structs.
#include "runtime/command_list.h"

namespace freeport {

fp_size CommandList::keep(std::vector<fp_size_instruction> code) {
  const auto &kept = code_.emplace_back(std::move(code));
  return {kept.data(), kept.size()};
}

fp_size CommandList::size(const package::Size *from) {
  if (!from)
    return {nullptr, 0};
  std::vector<fp_size_instruction> code;
  for (const package::SizeInstruction *each : *from->code())
    code.push_back({int32_t(each->opcode()), each->value()});
  return keep(std::move(code));
}

fp_size CommandList::constant(int64_t value) { return keep({{int32_t(package::SizeOpcode::constant), value}}); }

fp_size CommandList::sum(const fp_size &left, const fp_size &right) {
  std::vector<fp_size_instruction> code(left.code, left.code + left.length);
  code.insert(code.end(), right.code, right.code + right.length);
  if (left.code)
    code.push_back({int32_t(package::SizeOpcode::add), 0});
  return keep(std::move(code));
}

CommandList::CommandList(const package::Variant &variant, const Resolve &resolve) {
  for (flatbuffers::uoffset_t i = 0; i < variant.commands()->size(); ++i) {
    fp_command &command = commands_.emplace_back();
    if (variant.commands_type()->Get(i) == package::Command::Barrier) {
      command.kind = FP_COMMAND_BARRIER;
      continue;
    }
    const auto &dispatch = *variant.commands()->GetAs<package::Dispatch>(i);
    command.kind = FP_COMMAND_DISPATCH;
    command.kernel = dispatch.kernel();
    for (flatbuffers::uoffset_t axis = 0; axis < 3; ++axis)
      command.grid[axis] = axis < dispatch.grid()->size() ? size(dispatch.grid()->Get(axis)) : constant(1);
    auto &bound = bindings_.emplace_back();
    for (const package::Binding *binding : *dispatch.bindings()) {
      const Place place = resolve(*binding);
      fp_size end = {nullptr, 0};
      if (place.bytes)
        end = constant(int64_t(place.offset + place.bytes));
      else if (binding->bytes())
        end = sum(size(binding->offset()), size(binding->bytes()));
      bound.push_back({place.memory, place.offset, size(binding->offset()), end});
    }
    auto &values = scalars_.emplace_back();
    if (dispatch.scalars())
      for (const package::Size *scalar : *dispatch.scalars())
        values.push_back(size(scalar));
    command.bindings = bound.data();
    command.binding_count = bound.size();
    command.scalars = values.data();
    command.scalar_count = values.size();
    command.operation = dispatch.operation() ? dispatch.operation()->c_str() : nullptr;
  }
}

} // namespace freeport
