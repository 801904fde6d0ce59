// What an op needs to become kernels and dispatches: where its operands lie, names for new kernels, scratch memory, and
// the target's schedule data. One context lives as long as one variant of the program is built.
#pragma once

#include "dialects/graph/Graph.h"
#include "dialects/kernel/Emit.h"
#include "dialects/launch/Launch.h"

namespace freeport::graph {

/// What schedules need to know; from the target's description.
struct Schedule {
  int64_t tokensPerTile = 1; ///< tokens that one program of a linear works on
  int64_t weightRun = 1; ///< row blocks of an expert's gate that a single token's program reads before it reads up's
  bool prompts = false;  ///< tokens that follow each other are mostly of one sequence
  bool expandLatents = false; ///< latent attentions that can are expanded
  bool nativeExp = false;     ///< exp is the target's own
};

/// Rows of f32 in memory: row t's element i lies at element `t * pitch + offset + i`.
struct View {
  mlir::Value buffer;
  int64_t offset = 0;
  int64_t pitch = 0;
  int64_t width = 0;
  mlir::AffineExpr rows;
};

/// In which forms the consumers of a value read it.
struct Forms {
  bool plain = false;     ///< f32 rows
  bool quantized = false; ///< int8 activations
  bool flushed = false;   ///< f32 activations
};

/// Where rows go: to f32 rows, activations or both, a memory argument of the kernel for each.
struct Outputs {
  View plain;
  llvm::SmallVector<mlir::Type> types;
  llvm::SmallVector<mlir::Value> buffers;
  std::string name; ///< for the kernel's

  /// Writes elements `32 * group` to `32 * group + 31` of row `row` to each of `arguments`; with `part`, of that one of
  /// the parts, `width` elements each, that a row is made of.
  void store(kernel::Emit &e, mlir::ValueRange arguments, mlir::Value lanes, mlir::Value row, mlir::Value group,
             mlir::Value part = {}, int64_t width = 0) const;
};

class LoweringContext {
public:
  LoweringContext(mlir::ModuleOp module, launch::VariantOp variant, Schedule schedule);

  const Schedule schedule;
  mlir::MLIRContext *context() { return module.getContext(); }
  mlir::AffineExpr constant(int64_t value) { return mlir::getAffineConstantExpr(value, context()); }
  mlir::AffineExpr symbol(launch::Symbol symbol) { return launch::symbolExpression(context(), symbol); }
  mlir::AffineExpr tokens() { return symbol(launch::Symbol::tokens); }
  mlir::AffineExpr tablePages() { return symbol(launch::Symbol::tablePages); }

  /// Memory of graph values.
  void bind(mlir::Value value, View view) { views[value] = view; }
  View view(mlir::Value value) { return views.lookup(value); }
  /// How many rows a value has: the logit rows behind a select_rows, else the step's tokens.
  mlir::AffineExpr rowsOf(mlir::Value value);
  /// A place for the f32 rows of `value`, rows padded to 32 elements; the program's output for the value that is
  /// returned.
  View allocateRows(mlir::Value value, mlir::AffineExpr rows);
  /// f32 rows at a place, as outputs.
  Outputs plainOutputs(View plain) {
    assert(plain.offset == 0 && "rows are written from their first element on");
    return {plain, {f32Buffer()}, {plain.buffer}, ("_f32_" + llvm::Twine(plain.pitch)).str()};
  }
  /// A place for `value` in every form that a consumer reads. Rows are written in parts of `part` elements: where these
  /// are no whole groups, f32 rows it is.
  Outputs allocateOutputs(mlir::Value value, mlir::AffineExpr rows, int64_t part = 32);
  /// `value` as input of a span_dot: the form that its producer wrote, or a new dispatch that makes it.
  mlir::Value activations(mlir::Value value, bool quantized);
  /// Activations of `parts` pieces of each row, piece p from column `p * stride` of `view` on; record `t * parts + p`.
  mlir::Value emitActivations(View view, int64_t parts, int64_t stride, int64_t width, bool quantized);
  mlir::Value allocate(mlir::AffineExpr bytes);
  mlir::Value weights(mlir::FlatSymbolRefAttr parameter);
  mlir::Value state(llvm::StringRef name, int64_t pageBytes);
  /// A program input of 32-bit integers: "token_ids", "positions", "sequences", "page_table", "logit_rows".
  mlir::Value input(llvm::StringRef name);

  kernel::WeightsType weightsType(ParameterOp parameter);
  mlir::Type buffer(mlir::Type element) { return kernel::BufferType::get(context(), element); }
  mlir::Type f32Buffer() { return buffer(mlir::Float32Type::get(context())); }
  mlir::Type i32Buffer() { return buffer(mlir::IntegerType::get(context(), 32)); }
  kernel::ActivationsType activationsType(int64_t width, bool quantized);

  using KernelBody = llvm::function_ref<void(kernel::Emit &, mlir::ValueRange)>;
  /// The kernel called `name` with these memory arguments and `scalars` index arguments; emitted if it is new. A name
  /// says everything that its body depends on.
  kernel::FuncOp kernel(const llvm::Twine &name, llvm::ArrayRef<mlir::Type> memory, unsigned scalars, KernelBody body);
  void dispatch(kernel::FuncOp kernel, llvm::ArrayRef<mlir::AffineExpr> grid, mlir::ValueRange buffers,
                llvm::ArrayRef<mlir::AffineExpr> scalars, const llvm::Twine &implements);

  /// One linear map: `out[t, p] = residual + (weights[p] @ record[t * parts + p] + bias)`; part p goes to column
  /// `p * partStride` of `out`. Matrices have one part. With `gated`, the first half g of the rows and the second u
  /// give `silu(g) * u`, without bias or residual.
  struct Linear {
    mutable ParameterOp weights;
    mlir::Value activations;
    Outputs out;
    mlir::AffineExpr rows;
    int64_t parts = 1;
    int64_t partStride = 0;
    mlir::FlatSymbolRefAttr bias;
    std::optional<View> residual;
    bool gated = false;
  };
  void emitLinear(const Linear &linear, llvm::StringRef implements);

private:
  Forms formsOf(mlir::Value value);
  mlir::Value &activationsSlot(mlir::Value value, bool quantized) { return forms[{value, quantized}]; }

  mlir::ModuleOp module;
  mlir::OpBuilder kernels, launches;
  mlir::Operation *variant;
  llvm::DenseMap<mlir::Value, View> views;
  llvm::DenseMap<std::pair<mlir::Value, unsigned>, mlir::Value> forms;
  llvm::DenseMap<mlir::Operation *, llvm::SmallVector<int64_t>> writes; ///< buffers that a kernel writes
  llvm::StringMap<mlir::Value> memory;
  llvm::StringMap<int64_t> recordStrides;
};

/// `tokensPerTile`: in steps of few and of many tokens. `fast`: exp is the target's own, which the portable definition
/// may stand in for.
std::unique_ptr<mlir::Pass> createLowerGraphPass(int64_t weightRun, llvm::ArrayRef<int64_t> tokensPerTile, bool fast);

} // namespace freeport::graph
