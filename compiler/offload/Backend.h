// The compile-time contract of a target: everything that the compiler asks of a backend fits on this page. A backend is
// one folder, backends/NAME, and one line of backends/CMakeLists.txt.
#pragma once

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>
#include <vector>

namespace freeport {

/// The kernels of a model, compiled for one target.
struct Executable {
  std::string target;                  ///< e.g. "x86-64-v3"
  std::vector<std::string> conditions; ///< what a machine must offer, e.g. "avx2"
  uint32_t version = 1;                ///< of the content's format
  std::vector<char> content;
};

/// What schedules need to know of a target: data, not code.
struct TargetDescription {
  /// Row blocks of an expert's gate that one program of a single token reads before it reads up's.
  int64_t weightRun = 1;
  /// Tokens that one program of a linear works on, in steps of few (2 to 31) and of many tokens.
  int64_t tokensPerTile[2] = {4, 16};
};

/// On a module of kernels: it may fuse and approximate (`fast` numerics), where nothing is said multiplications and
/// additions round one by one. A backend may ignore it, but for `math.exp`, which only such kernels have: what has no
/// exp of its own runs freeport-kernel-expand-math.
constexpr llvm::StringLiteral kFastNumerics = "freeport.fast_numerics";

/// On a module of kernels: an i64, the bytes ahead of a single token's reads of weights that its kernels prefetch; -1
/// where they do not. Nothing said, or 0: whoever loads them decides. A backend may ignore it.
constexpr llvm::StringLiteral kPrefetchDistanceAttribute = "freeport.prefetch_distance";

/// `buildPipeline` and `serialize` are called for several profiles at once, on different threads and contexts.
class Backend {
public:
  virtual ~Backend() = default;
  /// The name in packages, --target and --device.
  virtual llvm::StringRef name() const = 0;
  virtual TargetDescription describe() const = 0;
  /// Success, or the reason why this backend declines `kernel` (shown to the user).
  virtual llvm::Error supports(mlir::Operation *kernel) const = 0;
  /// What a package carries an executable for, from the least demanding to the best; a device takes the best that it
  /// can run.
  virtual std::vector<std::string> profiles() const = 0;
  /// Appends the passes from the kernel dialect to code for one of the profiles; the module holds only `kernel.func`s.
  virtual void buildPipeline(mlir::OpPassManager &passes, llvm::StringRef profile) const = 0;
  /// Turns the module that the profile's pipeline left into bytes that the backend's runtime half loads. Each kernel is
  /// found in them under the name of its `kernel.func`.
  virtual llvm::Expected<Executable> serialize(mlir::ModuleOp module, llvm::StringRef profile) const = 0;
};

/// All backends in the order of backends/CMakeLists.txt.
llvm::ArrayRef<std::unique_ptr<Backend>> backends();

/// The backend called `name`, or an error that lists those there are.
llvm::Expected<const Backend *> findBackend(llvm::StringRef name);

/// Registers the passes and external interfaces that a backend brings.
void registerBackendPasses();

} // namespace freeport
