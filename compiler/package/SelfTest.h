// The kernels that a device runs before it trusts an executable (runtime/package.fbs, SelfTest): for each block format
// that a model's dot products read, one with a dot product of one token, one of several, and the float operations
// around them. What they leave is known from the reference; test/conformance holds every backend to it.
#pragma once

#include "dialects/kernel/Kernel.h"

#include "mlir/IR/BuiltinOps.h"

#include <random>
#include <string>
#include <vector>

namespace freeport {

struct SelfTest {
  std::string kernel;
  std::vector<std::vector<char>> arguments; ///< all memory arguments but the last, the result
  uint64_t resultBytes;
  uint64_t result; ///< XXH3-64
};

/// The test of one format, whose kernel it adds to the module.
SelfTest addSelfTest(mlir::ModuleOp module, kernel::BlockFormat format);

/// The tests of all formats that a kernel.span_dot of the module reads, in the order of the formats.
std::vector<SelfTest> addSelfTests(mlir::ModuleOp module);

/// Values for operands, here and in the conformance tests, none of which is or makes a subnormal.
/// A number between -1 and 1.
float sampleNumber(std::mt19937 &random);
/// The bits of such a number as f16: exponents 2^-10 to 2^-1.
uint16_t sampleHalf(std::mt19937 &random);
/// A packed matrix, or a bank of them, 16 where the type does not say how many. Any bits are codes; scales are sample
/// halves.
std::vector<char> sampleWeights(kernel::WeightsType type, std::mt19937 &random);
/// Records of activations, with the sums that their bytes have.
std::vector<char> sampleActivations(kernel::ActivationsType type, int64_t tokens, std::mt19937 &random);

} // namespace freeport
