// What the model families share: parameters checked against the checkpoint, and short names for graph ops.
#pragma once

#include "compiler/frontend/Frontend.h"
#include "compiler/frontend/Rope.h"
#include "dialects/graph/Graph.h"

#include "llvm/ADT/StringSet.h"

namespace freeport::frontend {

/// A checkpoint matrix [rows, inputs], or some of its rows.
struct Source {
  std::string tensor;
  int64_t rows = 0;
  int64_t inputs = 0;
  int64_t firstRow = 0;
  int64_t pieceRows = 0; ///< 0: all
  bool transposed = false;
};

/// How a router chooses (graph.route).
struct Routing {
  int64_t experts = 0, top = 0, groups = 1, groupsKept = 1;
  graph::RouteScore score = graph::RouteScore::softmax;
  graph::GroupScore groupScore = graph::GroupScore::maximum;
  bool biased = false; ///< by PREFIXgate.e_score_correction_bias
  bool normalize = false;
  float scale = 1;
};

class GraphBuilder {
public:
  GraphBuilder(mlir::MLIRContext &context, checkpoint::Checkpoint &checkpoint, const ImportOptions &options);

  checkpoint::Config &config() { return checkpoint.config(); }
  /// Refuses what quantization_config says unless it is FP8 in blocks of 128x128.
  void requireKnownQuantization();
  /// Whether the package's matrices will be integers with scales.
  bool isQuantized() const { return quantized; }
  bool isFast() const { return options.fast; }
  llvm::StringRef stateFormat() const { return isQuantized() ? "f16" : "f32"; }
  /// Of attention's keys where it is not the state's: null, or q8.
  mlir::StringAttr keyFormat() {
    return options.keys.empty() ? mlir::StringAttr() : builder.getStringAttr(options.keys);
  }

  /// Parameters. A tensor that is missing or misshapen is recorded as the import's error.
  mlir::FlatSymbolRefAttr vector(llvm::StringRef tensor, int64_t size);
  /// The biases of matrices, concatenated as `matrix` does: of tensor NAME.weight it is NAME.bias.
  mlir::FlatSymbolRefAttr biases(llvm::StringRef name, llvm::ArrayRef<Source> sources);
  mlir::FlatSymbolRefAttr table(llvm::StringRef name, llvm::ArrayRef<float> values);
  /// Sources concatenated along rows, in the weights' format unless `format` is given. They must have one format.
  mlir::FlatSymbolRefAttr matrix(llvm::StringRef name, llvm::ArrayRef<Source> sources, llvm::StringRef format = "");
  mlir::FlatSymbolRefAttr bank(llvm::StringRef name, llvm::ArrayRef<Source> entries, llvm::StringRef format = "",
                               llvm::StringRef record = "");

  /// Opens @step; its arguments.
  void beginStep();
  mlir::Value ids, positions, logitRows;
  void endStep(mlir::Value logits);

  mlir::Value embed(mlir::FlatSymbolRefAttr table, int64_t width);
  /// Each of `heads` parts of a row by itself.
  mlir::Value rmsNorm(mlir::Value x, mlir::FlatSymbolRefAttr weight, double epsilon, int64_t heads = 1);
  mlir::Value linear(mlir::Value x, mlir::FlatSymbolRefAttr weight, mlir::FlatSymbolRefAttr bias = {},
                     mlir::Value residual = {});
  /// x through a matrix of its own name, plus its bias if `biased`, plus `residual`.
  mlir::Value linear(mlir::Value x, const Source &source, bool biased = false, mlir::Value residual = {});
  /// x through each source. Neighbours of one format become one matrix, called `name`.
  llvm::SmallVector<mlir::Value> linears(mlir::Value x, llvm::StringRef name, llvm::ArrayRef<Source> sources,
                                         bool biased = false);
  mlir::Value columns(mlir::Value x, int64_t offset, int64_t width);
  mlir::Value rope(mlir::Value x, const Rope &rope, mlir::FlatSymbolRefAttr frequencies, graph::RopePairs pairs,
                   int64_t heads, int64_t offset = 0);
  mlir::Value glu(mlir::Value gate, mlir::Value up);
  mlir::Value selectRows(mlir::Value x);
  mlir::RankedTensorType rows(int64_t width);
  /// down(silu(gate(x)) * up(x)), plus `residual`; `biased`: all three have biases.
  mlir::Value gatedNetwork(mlir::Value x, llvm::StringRef prefix, int64_t hidden, int64_t inner, mlir::Value residual,
                           bool biased = false);
  /// The networks of the experts that the router PREFIXgate.weight chooses, plus `shared` where there is one, plus
  /// `residual`.
  mlir::Value routedExperts(mlir::Value x, llvm::StringRef prefix, const Routing &routing, int64_t hidden,
                            int64_t inner, mlir::Value shared, mlir::Value residual);

  /// Whether the checkpoint has such a tensor.
  bool has(llvm::StringRef tensor) const { return checkpoint.find(tensor) != nullptr; }
  /// Whether a problem was recorded: the layers that follow need not be built.
  bool hasProblem() const { return problem.has_value(); }
  llvm::Expected<ImportedModel> finish(llvm::StringRef family, int64_t vocabulary, int64_t maximumContext);

  mlir::OpBuilder builder;
  mlir::Location location;

private:
  const checkpoint::TensorInfo *require(llvm::StringRef tensor, llvm::ArrayRef<int64_t> shape);
  mlir::FlatSymbolRefAttr add(llvm::StringRef name, llvm::ArrayRef<int64_t> shape, llvm::StringRef format,
                              llvm::StringRef record, llvm::ArrayRef<mlir::Attribute> entries);
  graph::PieceAttr piece(const Source &source);
  void setError(const llvm::Twine &message);
  /// The block format of a checkpoint's matrix: `options.weights`, or what keeps its values.
  llvm::StringRef formatOf(const Source &source);

  checkpoint::Checkpoint &checkpoint;
  const ImportOptions &options;
  mlir::OwningOpRef<mlir::ModuleOp> module;
  mlir::OpBuilder parameters;
  mlir::func::FuncOp step;
  llvm::StringSet<> used;
  uint64_t parameterCount = 0;
  bool quantized = false;
  std::optional<std::string> problem;
};

/// A model family: builds the whole graph, and returns what `finish` returned.
using Family = llvm::Expected<ImportedModel> (*)(GraphBuilder &builder);
llvm::Expected<ImportedModel> importLlama(GraphBuilder &builder);
llvm::Expected<ImportedModel> importQwen3(GraphBuilder &builder);
llvm::Expected<ImportedModel> importQwen3Moe(GraphBuilder &builder);
llvm::Expected<ImportedModel> importDeepseekV2(GraphBuilder &builder);
llvm::Expected<ImportedModel> importDeepseekV3(GraphBuilder &builder);

/// What distinguishes the families whose attention is llama's.
struct GroupedQueryDecoder {
  /// The second half of layer `layer`: what PREFIX's network makes of `normed`, plus `residual`.
  using Network = llvm::function_ref<mlir::Value(mlir::Value normed, llvm::StringRef prefix, int64_t layer,
                                                 int64_t hidden, mlir::Value residual)>;
  llvm::StringRef name;
  bool headNorms = false; ///< each head of queries and keys is normed before it is rotated
  int64_t headSize = 0;   ///< where head_dim is absent; 0: hidden_size / num_attention_heads
};
llvm::Expected<ImportedModel> importGroupedQueryDecoder(GraphBuilder &builder, const GroupedQueryDecoder &family,
                                                        GroupedQueryDecoder::Network network);

} // namespace freeport::frontend
