// Everything that a program must know to read Freeport's IR: dialects and passes, ours and the upstream ones we use.
#pragma once

#include "mlir/IR/MLIRContext.h"

#include <memory>

namespace freeport {

/// Adds graph's, kernel's and launch's dialects and the upstream dialects that they build on.
void registerDialects(mlir::DialectRegistry &registry);

/// A context for one thread, with all of these dialects loaded.
std::unique_ptr<mlir::MLIRContext> createContext();

/// Makes every pass and stage known by name, once per process.
void registerPasses();

} // namespace freeport
