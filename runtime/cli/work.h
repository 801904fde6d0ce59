// What steps cost at the least, by the package's own plan: what measured times are set against.
#pragma once

#include "runtime/package.h"

#include <string>
#include <vector>

namespace freeport::cli {

/// Bytes of weights read once, and multiply-adds of linear maps.
struct Work {
  double bytes = 0, multiply_adds = 0;
};

/// One dispatch of a step, and what it costs at the least.
struct DispatchWork {
  std::string operation; ///< the named op that it implements, else the kernel's name
  std::string kernel;
  Work work;
  bool after_barrier; ///< whether it waits for all dispatches before it
};

/// Each dispatch of a step of `tokens` tokens, `heads` of which want logits, in order. Of a bank of experts, those that
/// are chosen count, each token's by itself until all are; of the embedding, its rows, which is nothing. A parameter
/// counts as read where it is first.
std::vector<DispatchWork> dispatch_work(const package::Manifest &manifest, int64_t tokens, int64_t heads);

/// All of them together.
Work step_work(const package::Manifest &manifest, int64_t tokens, int64_t heads);

/// The token that measurements put at `place`: they differ, so that a router sends them to different experts.
int32_t measured_token(const package::Manifest &manifest, int64_t place);

/// Of at least one value; of two in the middle, the larger.
double median(std::vector<double> values);

} // namespace freeport::cli
