// Types, verifiers and the closed list of upstream ops of the kernel dialect. Each check names the constraint of
// KernelOps.td that it keeps.
#include "dialects/kernel/Kernel.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/Interfaces/FunctionImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

#include "dialects/kernel/KernelDialect.cpp.inc"
#include "dialects/kernel/KernelEnums.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "dialects/kernel/KernelAttributes.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "dialects/kernel/KernelTypes.cpp.inc"
#define GET_OP_CLASSES
#include "dialects/kernel/KernelOps.cpp.inc"

using namespace mlir;

namespace freeport::kernel {

void KernelDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "dialects/kernel/KernelAttributes.cpp.inc"
      >();
  addTypes<
#define GET_TYPEDEF_LIST
#include "dialects/kernel/KernelTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "dialects/kernel/KernelOps.cpp.inc"
      >();
}

int64_t recordBytes(BlockFormat format) {
  switch (format) {
  case BlockFormat::f32:
    return 4096;
  case BlockFormat::f16:
  case BlockFormat::bf16:
    return 2048;
  case BlockFormat::q8:
    return 1024 + 64;
  case BlockFormat::q4:
    return 512 + 64;
  case BlockFormat::q5:
    return 512 + 128 + 64;
  case BlockFormat::q4_k:
    return 512 + 64 + 128;
  case BlockFormat::q6_k:
    return 512 + 256 + 128;
  }
  llvm_unreachable("unknown block format");
}

int64_t matrixBytes(BlockFormat format, int64_t rows, int64_t inputs) {
  return (rows + kQuantum - 1) / kQuantum * ((inputs + kQuantum - 1) / kQuantum) * recordBytes(format);
}

int64_t recordStride(int64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

bool isKernelUpstreamOp(Operation *op) {
  return isa<arith::ConstantOp, arith::AddIOp, arith::SubIOp, arith::MulIOp, arith::DivSIOp, arith::RemSIOp,
             arith::CeilDivSIOp, arith::AndIOp, arith::OrIOp, arith::XOrIOp, arith::ShLIOp, arith::ShRUIOp,
             arith::ShRSIOp, arith::MinSIOp, arith::MaxSIOp, arith::CmpIOp, arith::CmpFOp, arith::SelectOp,
             arith::AddFOp, arith::SubFOp, arith::MulFOp, arith::DivFOp, arith::NegFOp, arith::IndexCastOp,
             arith::SIToFPOp, arith::FPToSIOp, arith::ExtFOp, arith::TruncFOp, arith::ExtSIOp, arith::ExtUIOp,
             arith::TruncIOp, arith::BitcastOp, math::ExpOp, vector::BroadcastOp, vector::ExtractOp, vector::InsertOp,
             scf::ForOp, scf::IfOp, scf::YieldOp>(op);
}

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

LogicalResult BufferType::verify(function_ref<InFlightDiagnostic()> emitError, Type element) {
  if (element.isF32() || element.isF16() || element.isInteger(32) || element.isInteger(8))
    return success();
  return emitError() << "expects element type f32, f16, i32 or i8, got " << element;
}

LogicalResult ActivationsType::verify(function_ref<InFlightDiagnostic()> emitError, Type element, int64_t width) {
  if (!element.isF32() && !element.isInteger(8))
    return emitError() << "expects element type i8 or f32, got " << element;
  if (width < 1)
    return emitError() << "expects a width of at least 1, got " << width;
  return success();
}

LogicalResult WeightsType::verify(function_ref<InFlightDiagnostic()> emitError, BlockFormat format, int64_t entries,
                                  int64_t rows, int64_t inputs, int64_t entryStride) {
  if (rows < 1 || inputs < 1 || (entries < 0 && !ShapedType::isDynamic(entries)))
    return emitError() << "expects positive sizes, but for the entries of a bank, got " << entries << "x" << rows << "x"
                       << inputs;
  int64_t bytes = matrixBytes(format, rows, inputs);
  if (entries && (entryStride < bytes || entryStride % 64))
    return emitError() << "expects a stride of at least " << bytes << " bytes and a multiple of 64, got "
                       << entryStride;
  return success();
}

Type WeightsType::parse(AsmParser &parser) {
  StringRef keyword;
  SmallVector<int64_t> shape;
  int64_t stride = 0;
  SMLoc start = parser.getCurrentLocation();
  if (parser.parseLess() || parser.parseKeyword(&keyword) || parser.parseComma())
    return {};
  std::optional<BlockFormat> format = symbolizeBlockFormat(keyword);
  if (!format) {
    parser.emitError(start, "expects block format f32, f16, bf16, q8, q4, q5, q4_k or q6_k, got ") << keyword;
    return {};
  }
  if (parser.parseDimensionList(shape, /*allowDynamic=*/true, /*withTrailingX=*/false))
    return {};
  if (shape.size() != 2 && shape.size() != 3) {
    parser.emitError(start, "expects rows x inputs or entries x rows x inputs, got ") << shape.size() << " sizes";
    return {};
  }
  bool bank = shape.size() == 3;
  if (bank &&
      (parser.parseComma() || parser.parseKeyword("stride") || parser.parseEqual() || parser.parseInteger(stride)))
    return {};
  if (parser.parseGreater())
    return {};
  return parser.getChecked<WeightsType>(start, parser.getContext(), *format, bank ? shape[0] : 0, shape[bank],
                                        shape[bank + 1], stride);
}

void WeightsType::print(AsmPrinter &printer) const {
  printer << "<" << stringifyBlockFormat(getFormat()) << ", ";
  if (hasDynamicEntries())
    printer << "?x";
  else if (isBank())
    printer << getEntries() << "x";
  printer << getRows() << "x" << getInputs();
  if (isBank())
    printer << ", stride = " << getEntryStride();
  printer << ">";
}

//===----------------------------------------------------------------------===//
// kernel.func
//===----------------------------------------------------------------------===//

void FuncOp::build(OpBuilder &builder, OperationState &state, StringRef name, FunctionType type) {
  state.addAttribute(SymbolTable::getSymbolAttrName(), builder.getStringAttr(name));
  state.addAttribute(getFunctionTypeAttrName(state.name), TypeAttr::get(type));
  Block &entry = state.addRegion()->emplaceBlock();
  entry.addArguments(type.getInputs(), SmallVector<Location>(type.getNumInputs(), state.location));
}

ParseResult FuncOp::parse(OpAsmParser &parser, OperationState &result) {
  auto buildType = [](Builder &builder, ArrayRef<Type> inputs, ArrayRef<Type> results,
                      function_interface_impl::VariadicFlag,
                      std::string &) { return builder.getFunctionType(inputs, results); };
  return function_interface_impl::parseFunctionOp(parser, result, /*allowVariadic=*/false,
                                                  getFunctionTypeAttrName(result.name), buildType,
                                                  getArgAttrsAttrName(result.name), getResAttrsAttrName(result.name));
}

void FuncOp::print(OpAsmPrinter &printer) {
  function_interface_impl::printFunctionOp(printer, *this, /*isVariadic=*/false, getFunctionTypeAttrName(),
                                           getArgAttrsAttrName(), getResAttrsAttrName());
}

unsigned FuncOp::getNumMemoryArguments() {
  return llvm::count_if(getArgumentTypes(), [](Type type) { return !type.isIndex(); });
}

template <typename EffectType> static bool hasEffectOnArgument(FuncOp function, unsigned number) {
  Value argument = function.getArgument(number);
  return llvm::any_of(argument.getUsers(), [&](Operation *user) {
    auto interface = dyn_cast<MemoryEffectOpInterface>(user);
    if (!interface)
      return true;
    SmallVector<MemoryEffects::EffectInstance> effects;
    interface.getEffects(effects);
    return llvm::any_of(effects, [&](MemoryEffects::EffectInstance &effect) {
      return effect.getValue() == argument && isa<EffectType>(effect.getEffect());
    });
  });
}

bool FuncOp::writesArgument(unsigned number) { return hasEffectOnArgument<MemoryEffects::Write>(*this, number); }
bool FuncOp::readsArgument(unsigned number) { return hasEffectOnArgument<MemoryEffects::Read>(*this, number); }

LogicalResult FuncOp::verify() {
  bool scalars = false;
  for (auto [number, type] : llvm::enumerate(getArgumentTypes())) { // func_c1
    bool memory = isa<BufferType, WeightsType, ActivationsType>(type);
    if (!memory && !type.isIndex())
      return emitOpError("expects memory or index arguments, got ") << type << " for argument " << number;
    if (memory && scalars)
      return emitOpError("expects memory arguments before index arguments, got ") << type << " for argument " << number;
    scalars |= !memory;
  }
  if (!getResultTypes().empty())
    return emitOpError("expects no results, got ") << getResultTypes().size();
  WalkResult walk = getBody().walk([&](Operation *op) { // func_c2
    if (isa<KernelDialect>(op->getDialect()) || isKernelUpstreamOp(op))
      return WalkResult::advance();
    op->emitOpError("expects a kernel op or one of the closed list of upstream ops inside kernel.func");
    return WalkResult::interrupt();
  });
  return failure(walk.wasInterrupted());
}

//===----------------------------------------------------------------------===//
// Memory and blocks
//===----------------------------------------------------------------------===//

LogicalResult LocalOp::verify() {
  if (!isa<FuncOp>((*this)->getParentOp())) // local_c1
    return emitOpError("expects to stand in the entry block of a kernel.func");
  return success();
}

LogicalResult StageOp::verify() {
  auto local = getTarget().getDefiningOp<LocalOp>();
  int64_t needed = kQuantum * static_cast<int64_t>(getColumns());
  if (!local || !cast<BufferType>(getTarget().getType()).getElementType().isF32()) // stage_c1
    return emitOpError("expects a kernel.local of f32 as its target");
  if (static_cast<int64_t>(local.getElements()) < needed) // stage_c1
    return emitOpError("expects a target of at least ") << needed << " elements, got " << local.getElements();
  return success();
}

LogicalResult StoreGroupOp::verify() {
  ActivationsType type = getActivations().getType();
  Type element = cast<VectorType>(getValue().getType()).getElementType();
  if (element != type.getElementType()) // store_group_c1
    return emitOpError("expects values of ") << type.getElementType() << ", got " << element;
  if (type.isQuantized() != bool(getScale()) || type.isQuantized() != bool(getSum())) // store_group_c2
    return emitOpError("expects a scale and a sum exactly for activations of i8");
  return success();
}

LogicalResult SpanDotOp::verify() {
  WeightsType weights = getWeights().getType();
  ActivationsType activations = getActivations().getType();
  if (weights.isQuantized() != activations.isQuantized()) // span_dot_c1
    return emitOpError("expects activations of ")
           << (weights.isQuantized() ? "i8" : "f32") << " for " << stringifyBlockFormat(weights.getFormat())
           << " weights, got " << activations.getElementType();
  if (weights.getInputs() != activations.getWidth()) // span_dot_c2
    return emitOpError("expects activations of width ") << weights.getInputs() << ", got " << activations.getWidth();
  if (weights.isBank() != bool(getEntry())) // span_dot_c3
    return emitOpError("expects an entry exactly for a bank of weights");
  auto expected =
      VectorType::get({static_cast<int64_t>(getRowBlocks().size()), static_cast<int64_t>(getTokens().size()), kQuantum},
                      Float32Type::get(getContext()));
  if (getResult().getType() != expected) // span_dot_c4
    return emitOpError("expects result ") << expected << ", got " << getResult().getType();
  return success();
}

LogicalResult UnpackOp::verify() {
  if (getWeights().getType().isBank()) // unpack_c1
    return emitOpError("expects a matrix, got a bank of ") << getWeights().getType().getEntries();
  return success();
}

} // namespace freeport::kernel
