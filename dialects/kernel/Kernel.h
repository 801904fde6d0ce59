// The kernel dialect: 32-lane programs over blocks. KernelOps.td gives the meaning of each op.
#pragma once

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "dialects/kernel/KernelDialect.h.inc"
#include "dialects/kernel/KernelEnums.h.inc"

namespace freeport::kernel {

/// Lanes of a program, rows and inputs of a block, inputs of a group, groups of a span, tokens of a page.
constexpr int64_t kQuantum = 32;

/// Whether blocks hold integers with scales.
inline bool isQuantized(BlockFormat format) { return format >= BlockFormat::q8; }

/// Bytes of a record of 32 rows x 32 inputs: payload, then scales, padded to 64.
int64_t recordBytes(BlockFormat format);

/// Bytes of a packed matrix: whole records, partial blocks padded.
int64_t matrixBytes(BlockFormat format, int64_t rows, int64_t inputs);

/// Distance between the entries of banks that lie side by side and have `bytes` together in each entry: whole pages.
int64_t recordStride(int64_t bytes);

/// Whether a kernel may hold `op` though it is not of the kernel dialect: the closed list of upstream ops.
bool isKernelUpstreamOp(mlir::Operation *op);

} // namespace freeport::kernel

#define GET_ATTRDEF_CLASSES
#include "dialects/kernel/KernelAttributes.h.inc"
#define GET_TYPEDEF_CLASSES
#include "dialects/kernel/KernelTypes.h.inc"
#define GET_OP_CLASSES
#include "dialects/kernel/KernelOps.h.inc"
