// freeport-opt: the compiler developer's program. It parses IR of every dialect of ours, runs passes by name, prints IR
// after each pass and writes a reproducer on a crash (the options of mlir-opt), and knows --debug-only.
#include "compiler/lowering/Register.h"

#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/Debug.h"

int main(int argc, char **argv) {
  static llvm::cl::list<std::string> debugOnly("debug-only", llvm::cl::CommaSeparated,
                                               llvm::cl::desc("Debug output of these types only (comma-separated)"),
                                               llvm::cl::callback([](const std::string &) { llvm::DebugFlag = true; }));
  mlir::DialectRegistry registry;
  freeport::registerDialects(registry);
  freeport::registerPasses();
  auto [inputFile, outputFile] =
      mlir::registerAndParseCLIOptions(argc, argv, "freeport-opt: runs Freeport's compiler passes\n", registry);
  llvm::SmallVector<const char *> types;
  for (const std::string &type : debugOnly)
    types.push_back(type.c_str());
  if (!types.empty())
    llvm::setCurrentDebugTypes(types.data(), types.size());
  return mlir::asMainReturnCode(mlir::MlirOptMain(argc, argv, inputFile, outputFile, registry));
}
