// A step of a session, dispatch by dispatch, with a look into memory after each: how two devices are compared where
// they disagree. Slow, and it allocates.
#pragma once

#include "runtime/session.h"

#include <string_view>

namespace freeport {

class StepTrace {
public:
  /// The session must outlive the trace, and do nothing else between `begin` and `end`.
  explicit StepTrace(Session &session) : session_(session) {}

  /// Prepares the step, as Session::step would; on success `end` must follow.
  Status begin(std::span<const Row> rows);
  /// Dispatches of the step.
  size_t size() const { return dispatches_.size(); }
  /// Runs dispatch `number`; in order from 0.
  Status run(size_t number);
  /// Ends the step, which takes effect unless `status` says that it failed.
  Status end(Status status);

  /// The named op that the dispatch is part of, and its kernel.
  std::string_view operation(size_t number) const;
  std::string_view kernel(size_t number) const;
  size_t bindings(size_t number) const { return dispatches_[number]->binding_count; }
  /// Whether the binding is a parameter, which no dispatch writes.
  bool is_parameter(size_t number, size_t binding) const;
  /// The bytes that the dispatch's binding shows.
  Result<std::vector<std::byte>> read(size_t number, size_t binding) const;

private:
  Session &session_;
  std::vector<const fp_command *> dispatches_;
};

} // namespace freeport
