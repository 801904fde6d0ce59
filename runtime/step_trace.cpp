// Each dispatch is recorded alone, replayed and erased.
#include "runtime/step_trace.h"

#include "runtime/size.h"

#include <algorithm>

namespace freeport {

Status StepTrace::begin(std::span<const Row> rows) {
  FP_RETURN_IF_ERROR(session_.prepare(rows));
  dispatches_.clear();
  for (const fp_command &command : session_.variants_[session_.variant_].commands())
    if (command.kind == FP_COMMAND_DISPATCH)
      dispatches_.push_back(&command);
  return Status();
}

Status StepTrace::run(size_t number) {
  const Model &model = session_.model();
  const auto lock = model.lock();
  fp_recording *recording = nullptr;
  fp_error error = {};
  if (model.api().record(model.device(), model.executable(), dispatches_[number], 1, &recording, &error))
    return device_status(error);
  const int32_t code = model.api().replay(model.device(), recording, session_.symbols_, kSymbols, &error);
  model.api().erase(model.device(), recording);
  return code ? device_status(error) : Status();
}

Status StepTrace::end(Status status) { return session_.complete(std::move(status)); }

std::string_view StepTrace::operation(size_t number) const {
  const char *operation = dispatches_[number]->operation;
  return operation ? operation : "";
}

std::string_view StepTrace::kernel(size_t number) const {
  const auto &kernels = *session_.model().package().manifest().kernels();
  return kernels.Get(dispatches_[number]->kernel)->name()->string_view();
}

bool StepTrace::is_parameter(size_t number, size_t binding) const {
  const fp_memory *memory = dispatches_[number]->bindings[binding].memory;
  auto is = [&](const Session::Memory &each) { return each.memory == memory; };
  return !is(session_.arena_) && !is(session_.output_) &&
         std::none_of(session_.states_.begin(), session_.states_.end(), is) &&
         std::none_of(session_.inputs_.begin(), session_.inputs_.end(), is);
}

Result<std::vector<std::byte>> StepTrace::read(size_t number, size_t binding) const {
  const fp_binding &bound = dispatches_[number]->bindings[binding];
  const Model &model = session_.model();
  uint64_t size = 0;
  auto find = [&](const Session::Memory &each) {
    if (each.memory == bound.memory)
      size = each.bytes;
  };
  find(session_.arena_);
  find(session_.output_);
  std::for_each(session_.states_.begin(), session_.states_.end(), find);
  std::for_each(session_.inputs_.begin(), session_.inputs_.end(), find);
  const std::span<const int64_t> symbols(session_.symbols_, kSymbols);
  FP_ASSIGN_OR_RETURN(const int64_t offset, evaluate_size(bound.offset, symbols));
  int64_t end = int64_t(size);
  if (bound.end.code) {
    FP_ASSIGN_OR_RETURN(end, evaluate_size(bound.end, symbols));
  }
  const int64_t begin = int64_t(bound.memory_offset) + offset;
  std::vector<std::byte> bytes(size_t(std::max<int64_t>(std::min(end, int64_t(size)) - begin, 0)));
  const auto lock = model.lock();
  fp_error error = {};
  if (!bytes.empty() &&
      model.api().read(model.device(), bytes.data(), bound.memory, uint64_t(begin), bytes.size(), &error))
    return device_status(error);
  return bytes;
}

} // namespace freeport
