// The graph dialect: what a model computes, free of any target. GraphOps.td gives the meaning of each op.
#pragma once

#include "dialects/kernel/Kernel.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"

namespace freeport::graph {
class LoweringContext;
}

#include "dialects/Lowerable.h.inc"
#include "dialects/graph/GraphDialect.h.inc"
#include "dialects/graph/GraphEnums.h.inc"

#define GET_ATTRDEF_CLASSES
#include "dialects/graph/GraphAttributes.h.inc"
#define GET_OP_CLASSES
#include "dialects/graph/GraphOps.h.inc"

namespace freeport::graph {

/// The parameter that `symbol` names in the module around `op`, or null.
ParameterOp lookupParameter(mlir::Operation *op, mlir::FlatSymbolRefAttr symbol);

/// Width of a tensor of rows.
int64_t width(mlir::Value rows);

} // namespace freeport::graph
