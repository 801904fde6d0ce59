// From a checkpoint to the graph dialect: one file per model family, found by config.json's architectures[0].
// Everything is checked against the configuration before a weight is read.
#pragma once

#include "compiler/checkpoint/Checkpoint.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

#include <functional>

namespace freeport::frontend {

struct ImportOptions {
  /// Block format of linear, expert, embedding and head matrices; "keep": of each the one that its type is stored in.
  std::string weights = "q4";
  /// Block format of attention's keys, q8; "": as values are kept.
  std::string keys = {};
  /// `fast` numerics: latent attention also gets the weight with which prompts expand keys.
  bool fast = false;
};

struct ImportedModel {
  mlir::OwningOpRef<mlir::ModuleOp> module;
  std::string family; ///< architectures[0]
  int64_t vocabulary = 0;
  int64_t maximumContext = 0;
  uint64_t parameterCount = 0;      ///< elements of the tensors that the model uses
  std::vector<std::string> leftOut; ///< tensors of the checkpoint that it does not use
  std::vector<std::string> notes;   ///< what a user should know
};

/// Imports the checkpoint. An unknown family, an unsupported configuration value, a missing or misshapen tensor are
/// errors.
llvm::Expected<ImportedModel> importCheckpoint(mlir::MLIRContext &context, checkpoint::Checkpoint &checkpoint,
                                               const ImportOptions &options);

} // namespace freeport::frontend
