// The launch dialect: what the runtime replays. LaunchOps.td gives the meaning of each op.
#pragma once

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/AffineExpr.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "mlir/Pass/Pass.h"

#include "dialects/launch/LaunchDialect.h.inc"

namespace freeport::launch {

/// The symbols of a step, in the order of the manifest: rows of the step, rows that want logits, sequences (rows of the
/// page table), and pages in a row of the page table.
enum class Symbol : unsigned { tokens, logitRows, sequences, tablePages };
constexpr unsigned kSymbols = 4;
llvm::StringRef symbolName(Symbol symbol);
mlir::AffineExpr symbolExpression(mlir::MLIRContext *context, Symbol symbol);

std::unique_ptr<mlir::Pass> createPlanArenaPass();
std::unique_ptr<mlir::Pass> createInsertBarriersPass();

} // namespace freeport::launch

#define GET_ATTRDEF_CLASSES
#include "dialects/launch/LaunchAttributes.h.inc"
#define GET_TYPEDEF_CLASSES
#include "dialects/launch/LaunchTypes.h.inc"
#define GET_OP_CLASSES
#include "dialects/launch/LaunchOps.h.inc"
