// The dialect itself, parameters, and the checks that several ops share. The ops' own verifiers and lowerings stand in
// ops/.
#include "dialects/graph/Graph.h"

#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

#include "dialects/Lowerable.cpp.inc"
#include "dialects/graph/GraphDialect.cpp.inc"
#include "dialects/graph/GraphEnums.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "dialects/graph/GraphAttributes.cpp.inc"
#define GET_OP_CLASSES
#include "dialects/graph/GraphOps.cpp.inc"

using namespace mlir;

namespace freeport::graph {

void GraphDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialects/graph/GraphAttributes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "dialects/graph/GraphOps.cpp.inc"
      >();
}

ParameterOp lookupParameter(Operation *op, FlatSymbolRefAttr symbol) {
  auto module = op->getParentOfType<ModuleOp>();
  return module ? module.lookupSymbol<ParameterOp>(symbol) : ParameterOp();
}

int64_t width(Value rows) { return cast<RankedTensorType>(rows.getType()).getDimSize(1); }

LogicalResult ParameterOp::verify() {
  ArrayRef<int64_t> shape = getShape();
  if (shape.empty() || shape.size() > 3 || llvm::any_of(shape, [](int64_t size) { return size < 1; })) // parameter_c1
    return emitOpError("expects a shape of one to three positive sizes, got ") << shape;
  if (bool(getEntries()) == bool(getValues())) // parameter_c2
    return emitOpError("expects either entries or values");
  if (auto values = getValues(); values && (shape.size() != 1 || int64_t(values->size()) != shape[0])) // parameter_c2
    return emitOpError("expects as many values as a shape of rank 1 has, got ") << values->size();
  size_t expected = shape.size() == 3 ? shape[0] : 1;
  if (auto entries = getEntries(); entries && entries->size() != expected) // parameter_c3
    return emitOpError("expects ") << expected << " entries, got " << entries->size();
  std::optional<kernel::BlockFormat> format = kernel::symbolizeBlockFormat(getFormat());
  if (!format || (shape.size() == 1 && *format != kernel::BlockFormat::f32)) // parameter_c4
    return emitOpError("expects format ")
           << (shape.size() == 1 ? "f32" : "f32, f16, bf16, q8, q4, q5, q4_k or q6_k") << ", got " << getFormat();
  return success();
}

} // namespace freeport::graph
