// A kernel from text to a function that tests call: parsed, lowered and linked by the cpu backend, loaded from an
// anonymous file. The tests beside this one compute what to expect by plain loops.
#pragma once

#include "backends/cpu/compiler/Pipeline.h"
#include "compiler/lowering/Register.h"
#include "dialects/kernel/Kernel.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"

#include <array>
#include <bit>
#include <cstring>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace freeport::cpu::test {

/// The shared object of `text`, which holds kernel.func @k, for `profile`. A failure is a failure of the test, and
/// empty.
inline std::vector<char> compile(const std::string &text, llvm::StringRef profile) {
  mlir::DialectRegistry registry;
  registerDialects(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  auto module = mlir::parseSourceString<mlir::ModuleOp>(text, &context);
  mlir::PassManager passes(&context);
  buildPipeline(passes, profile);
  if (!module || mlir::failed(passes.run(*module))) {
    ADD_FAILURE() << "does not compile: " << text;
    return {};
  }
  auto executable = serialize(*module, *findProfile(profile));
  if (executable)
    return executable->content;
  ADD_FAILURE() << llvm::toString(executable.takeError());
  return {};
}

class KernelProgram {
public:
  explicit KernelProgram(const std::string &text) : content(compile(text, "x86-64-v3")) {
    int file = memfd_create("kernel", 0); // stays open: the loader takes libraries of one path for one library
    if (write(file, content.data(), content.size()) == static_cast<ssize_t>(content.size()))
      library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library)
      function = reinterpret_cast<Function>(dlsym(library, "k"));
    EXPECT_TRUE(function) << text;
  }

  /// Runs the program at `x`, `y`, `z` of the grid.
  void run(std::vector<void *> bindings, std::vector<int64_t> scalars, int64_t x = 0, int64_t y = 0, int64_t z = 0) {
    if (function)
      function(bindings.data(), scalars.data(), x, y, z);
  }

  /// The variable of that name in the shared object, or null.
  int64_t *variable(const char *name) { return library ? static_cast<int64_t *>(dlsym(library, name)) : nullptr; }

  std::vector<char> content;

private:
  using Function = void (*)(void *const *, const int64_t *, int64_t, int64_t, int64_t);
  void *library = nullptr;
  Function function = nullptr;
};

inline float fromHalf(uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
inline uint16_t toHalf(float value) { return std::bit_cast<uint16_t>(static_cast<_Float16>(value)); }

/// Both sequences hold the same bits.
template <typename T>
void expectSameBits(const std::vector<T> &actual, const std::vector<T> &expected, const char *what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i)
    if (memcmp(&actual[i], &expected[i], sizeof(T)) != 0) {
      ADD_FAILURE() << what << ": element " << i << " expects " << expected[i] << ", got " << actual[i];
      return;
    }
}

} // namespace freeport::cpu::test
