// A variant's commands as a device records them, with everything that they point to.
#pragma once

#include "runtime/device.h"
#include "runtime/package.h"

#include <deque>
#include <functional>
#include <vector>

namespace freeport {

class CommandList {
public:
  /// The memory that a binding shows: `bytes` from `offset` on; 0 bytes: to the memory's end.
  struct Place {
    fp_memory *memory;
    uint64_t offset = 0, bytes = 0;
  };
  using Resolve = std::function<Place(const package::Binding &)>;

  CommandList(const package::Variant &variant, const Resolve &resolve);
  CommandList(CommandList &&) = default;

  /// Dispatches and barriers in order; valid as long as the list.
  std::span<const fp_command> commands() const { return commands_; }

private:
  fp_size size(const package::Size *from);
  fp_size constant(int64_t value);
  fp_size sum(const fp_size &left, const fp_size &right);
  fp_size keep(std::vector<fp_size_instruction> code);

  std::vector<fp_command> commands_;
  // Deques: what is pointed to stays where it is.
  std::deque<std::vector<fp_size_instruction>> code_;
  std::deque<std::vector<fp_binding>> bindings_;
  std::deque<std::vector<fp_size>> scalars_;
};

} // namespace freeport
