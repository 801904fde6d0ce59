// Sizes, their syntax, and the verifiers of the launch dialect.
#include "dialects/launch/Launch.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/TypeSwitch.h"

#include "dialects/launch/LaunchDialect.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "dialects/launch/LaunchAttributes.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "dialects/launch/LaunchTypes.cpp.inc"
#define GET_OP_CLASSES
#include "dialects/launch/LaunchOps.cpp.inc"

using namespace mlir;

namespace freeport::launch {

void LaunchDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialects/launch/LaunchAttributes.cpp.inc"
      >();
  addTypes<
#define GET_TYPEDEF_LIST
#include "dialects/launch/LaunchTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "dialects/launch/LaunchOps.cpp.inc"
      >();
}

StringRef symbolName(Symbol symbol) {
  static constexpr StringLiteral names[kSymbols] = {"tokens", "logit_rows", "sequences", "table_pages"};
  return names[static_cast<unsigned>(symbol)];
}

AffineExpr symbolExpression(MLIRContext *context, Symbol symbol) {
  return getAffineSymbolExpr(static_cast<unsigned>(symbol), context);
}

static void printExpression(llvm::raw_ostream &out, AffineExpr expression, bool nested) {
  if (auto constant = dyn_cast<AffineConstantExpr>(expression)) {
    out << constant.getValue();
    return;
  }
  if (auto symbol = dyn_cast<AffineSymbolExpr>(expression)) {
    out << symbolName(static_cast<Symbol>(symbol.getPosition()));
    return;
  }
  auto binary = cast<AffineBinaryOpExpr>(expression);
  bool sum = expression.getKind() == AffineExprKind::Add;
  if (nested)
    out << "(";
  printExpression(out, binary.getLHS(), !sum);
  switch (expression.getKind()) {
  case AffineExprKind::Add:
    out << " + ";
    break;
  case AffineExprKind::Mul:
    out << " * ";
    break;
  case AffineExprKind::CeilDiv:
    out << " ceildiv ";
    break;
  case AffineExprKind::FloorDiv:
    out << " floordiv ";
    break;
  default:
    out << " mod ";
  }
  printExpression(out, binary.getRHS(), !sum);
  if (nested)
    out << ")";
}

void SizeAttr::print(AsmPrinter &printer) const {
  printer << "<";
  printExpression(printer.getStream(), getExpression(), /*nested=*/false);
  printer << ">";
}

Attribute SizeAttr::parse(AsmParser &parser, Type) {
  SmallVector<std::pair<StringRef, AffineExpr>> symbols;
  for (unsigned number = 0; number < kSymbols; ++number) {
    auto value = static_cast<Symbol>(number);
    symbols.push_back({symbolName(value), symbolExpression(parser.getContext(), value)});
  }
  AffineExpr expression;
  if (parser.parseLess() || parser.parseAffineExpr(symbols, expression) || parser.parseGreater())
    return {};
  return get(parser.getContext(), expression);
}

LogicalResult VariantOp::verify() {
  if (int64_t(getMinimum()) < 1 || getMinimum() > getMaximum()) // variant_c1
    return emitOpError("expects 1 <= minimum <= maximum, got ") << getMinimum() << " to " << getMaximum();
  return success();
}

LogicalResult DispatchOp::verifySymbolUses(SymbolTableCollection &symbols) {
  auto function =
      symbols.lookupNearestSymbolFrom<FunctionOpInterface>((*this)->getParentOfType<ModuleOp>(), getKernelAttr());
  if (!function || function->getName().getStringRef() != "kernel.func") // dispatch_c1
    return emitOpError("expects the name of a kernel.func, got ") << getKernel();
  unsigned scalars = llvm::count_if(function.getArgumentTypes(), [](Type type) { return type.isIndex(); });
  unsigned memory = function.getNumArguments() - scalars;
  if (getBuffers().size() != memory || getScalars().size() != scalars) // dispatch_c2
    return emitOpError("expects ") << memory << " buffers and " << scalars << " scalars for " << getKernel() << ", got "
                                   << getBuffers().size() << " and " << getScalars().size();
  if (getGrid().empty() || getGrid().size() > 3) // dispatch_c3
    return emitOpError("expects one to three grid dimensions, got ") << getGrid().size();
  for (int64_t number : getWrites())
    if (number < 0 || number >= int64_t(memory)) // dispatch_c4
      return emitOpError("expects numbers of its ") << memory << " buffers in writes, got " << number;
  return success();
}

} // namespace freeport::launch
