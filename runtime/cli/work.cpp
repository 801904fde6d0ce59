#include "runtime/cli/work.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <utility>

namespace freeport::cli {

std::vector<DispatchWork> dispatch_work(const package::Manifest &manifest, int64_t tokens, int64_t heads) {
  const package::Variant *variant = manifest.program()->variants()->Get(0);
  for (const package::Variant *each : *manifest.program()->variants())
    if (uint64_t(tokens) >= each->minimum_tokens() && uint64_t(tokens) <= each->maximum_tokens())
      variant = each;
  double chosen = 1; // experts of a token, as the router before them says
  std::set<uint32_t> read;
  std::vector<DispatchWork> all;
  bool barrier = false;
  for (flatbuffers::uoffset_t number = 0; number < variant->commands()->size(); ++number) {
    if ((*variant->commands_type())[number] != package::Command::Dispatch) {
      barrier = true;
      continue;
    }
    const auto &dispatch = *static_cast<const package::Dispatch *>((*variant->commands())[number]);
    const std::string kernel = manifest.kernels()->Get(dispatch.kernel())->name()->str();
    const std::string operation = dispatch.operation() ? dispatch.operation()->str() : kernel;
    Work &work = all.emplace_back(operation, kernel, Work(), std::exchange(barrier, false)).work;
    int64_t top = 0;
    if (std::sscanf(operation.c_str(), "route %ld of", &top) == 1)
      chosen = double(top);
    if (operation.starts_with("embed"))
      continue;
    bool logits = false;
    for (const package::Binding *binding : *dispatch.bindings())
      logits |= binding->kind() == package::BindingKind::output;
    for (const package::Binding *binding : *dispatch.bindings()) {
      if (binding->kind() != package::BindingKind::parameter)
        continue;
      const package::Parameter &parameter = *manifest.parameters()->Get(binding->index());
      const auto &shape = *parameter.shape();
      if (shape.size() < 2)
        continue;
      const double entries = shape.size() == 3 ? double(shape[0]) : 1;
      const bool experts = operation.starts_with("experts");
      const double elements = double(shape[shape.size() - 2]) * double(shape[shape.size() - 1]);
      work.multiply_adds += double(logits ? heads : tokens) * (experts ? chosen : entries) * elements;
      if (read.insert(binding->index()).second)
        work.bytes += double(parameter.entry_size()) * (experts ? std::min(entries, double(tokens) * chosen) : entries);
    }
  }
  return all;
}

Work step_work(const package::Manifest &manifest, int64_t tokens, int64_t heads) {
  Work sum;
  for (const DispatchWork &each : dispatch_work(manifest, tokens, heads))
    sum.bytes += each.work.bytes, sum.multiply_adds += each.work.multiply_adds;
  return sum;
}

int32_t measured_token(const package::Manifest &manifest, int64_t place) {
  return int32_t((place * 2654435761 + 12345) % (1LL << 31) % int64_t(manifest.vocabulary_size()));
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + ptrdiff_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

} // namespace freeport::cli
