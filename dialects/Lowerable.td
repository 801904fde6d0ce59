// The interface that every op of the graph dialect implements: how it becomes kernels and dispatches. One pass
// (freeport-graph-lower) calls it for each op, so a new op changes no pass and no list.
#ifndef FREEPORT_DIALECTS_LOWERABLE_TD
#define FREEPORT_DIALECTS_LOWERABLE_TD

include "mlir/IR/OpBase.td"

def Lowerable : OpInterface<"Lowerable"> {
  let cppNamespace = "::freeport::graph";
  let description = "Becomes kernels of the kernel dialect and dispatches of the launch dialect.";
  let methods = [
    InterfaceMethod<"Emits the kernels (shared by shape and name) and dispatches that compute this op's results, and binds the "
                    "results' memory in `context`.",
                    "::llvm::LogicalResult", "lower", (ins "::freeport::graph::LoweringContext &":$context)>
  ];
}

#endif
