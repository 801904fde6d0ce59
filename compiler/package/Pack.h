// What a package's weights are made of: parameters as the compiler describes them, before any weight is read. The
// packer (BlockPacker.h) turns pieces of checkpoint tensors into blocks; the writer streams them into the file.
#pragma once

#include "dialects/kernel/Kernel.h"

#include <string>
#include <vector>

namespace freeport {

/// Rows `firstRow .. firstRow + rows - 1` of a checkpoint tensor (the elements of one of rank 1 are rows of one input);
/// `transposed`: its rows become inputs.
struct Piece {
  std::string tensor;
  int64_t firstRow = 0;
  int64_t rows = 0;
  bool transposed = false;
};

/// One parameter of the package. Pieces of an entry are concatenated along rows (after transposition).
struct ParameterPlan {
  std::string name;
  kernel::BlockFormat format = kernel::BlockFormat::f32;
  std::vector<int64_t> shape;              ///< [n], [rows, inputs] or [entries, rows, inputs]
  std::vector<std::vector<Piece>> entries; ///< one for rank 1 and 2
  std::vector<float> values;               ///< rank 1 computed by the compiler: instead of entries
  /// Banks of the same nonempty record lie side by side: for each entry, all of them in the order of the list, padded
  /// to 4 KiB together. Their distance between entries is the whole record's size.
  std::string record;
};

} // namespace freeport
