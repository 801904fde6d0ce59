// From the launch dialect and the places of the weights to the package's manifest (runtime/package.fbs).
#pragma once

#include "compiler/frontend/Frontend.h"
#include "compiler/offload/Backend.h"
#include "compiler/package/PackageWriter.h"
#include "compiler/package/SelfTest.h"

namespace freeport {

/// What the manifest says beside the program.
struct ManifestParts {
  std::vector<ParameterPlan> plans;
  std::vector<Place> places;
  std::vector<std::pair<std::string, std::pair<Executable, FileSegment>>> executables; ///< by backend
  std::vector<SelfTest> selfTests;
  FileSegment graph;
  std::optional<FileSegment> tokenizer, tokenizerConfig, chatTemplate;
  std::string weights, numerics, checkpointName, options;
  std::string configText, generationText; ///< config.json and generation_config.json, for tokens and sampling defaults
};

/// What a graph's parameters ask of the packer, in the order of the manifest (by name, records kept together by name).
std::vector<ParameterPlan> planParameters(mlir::ModuleOp graph);

/// The manifest's bytes. `launch` holds the launch stage.
std::string buildManifest(mlir::ModuleOp launch, const frontend::ImportedModel &model, const ManifestParts &parts);

/// The kernels in the order of the manifest.
std::vector<std::string> kernelNames(mlir::ModuleOp launch);

} // namespace freeport
