// The host's exp against the compiler's, run as a kernel by every backend, the reference first: equal bits.
#include "compiler/lowering/Register.h"
#include "dialects/kernel/Emit.h"
#include "runtime/portable_math.h"
#include "test/conformance/RunKernel.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

using namespace mlir;

namespace freeport {
namespace {

/// Bits of inputs: all exponents, every sign, a fine grid where exp varies, and the edges of its clamp.
std::vector<uint32_t> inputs() {
  std::vector<uint32_t> bits;
  for (uint64_t each = 0; each < (uint64_t(1) << 32); each += 65521) // NaNs and subnormals among them
    bits.push_back(static_cast<uint32_t>(each));
  for (int i = -88 * 4096; i <= 88 * 4096; ++i)
    bits.push_back(std::bit_cast<uint32_t>(static_cast<float>(i) / 4096 + 1.0f / 30000));
  // Around every n + 1/2 the reduction changes its integer.
  for (int n = -127; n <= 127; ++n) {
    uint32_t middle = std::bit_cast<uint32_t>((static_cast<float>(n) + 0.5f) * 0.69314718f);
    for (uint32_t step = 0; step < 32; ++step)
      bits.push_back(middle + step - 16);
  }
  for (float edge : {0.0f, 1.0f, 87.0f, 88.0f, 89.0f, 104.0f, 3.4028235e38f, 1.1754944e-38f, 1e-45f, INFINITY, NAN})
    for (float x : {edge, std::nextafter(edge, 0.0f), std::nextafter(edge, INFINITY)})
      for (uint32_t sign : {0u, 0x80000000u})
        bits.push_back(std::bit_cast<uint32_t>(x) | sign);
  bits.push_back(0x3EC7F2BF); // one of the 15 where the last bit of the polynomial's first coefficient shows
  bits.resize((bits.size() + 31) / 32 * 32);
  return bits;
}

TEST(PortableMath, ExpEqualsTheKernels) {
  DialectRegistry registry;
  registerDialects(registry);
  MLIRContext context(registry);
  OwningOpRef<ModuleOp> module = parseSourceString<ModuleOp>(R"(
    kernel.func @k(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>) {
      %p = kernel.program_id x
      %c32 = arith.constant 32 : index
      %at = arith.muli %p, %c32 : index
      %v = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>
      kernel.store_lanes %v, %y[%at] : vector<32xf32>, !kernel.buffer<f32>
      kernel.return
    })",
                                                             &context);
  ASSERT_TRUE(module);
  module->walk([](kernel::StoreLanesOp store) {
    OpBuilder builder(store);
    store.getValueMutable().assign(kernel::Emit(builder, store.getLoc()).exp(store.getValue()));
  });

  const std::vector<uint32_t> bits = inputs();
  ASSERT_GT(bits.size(), 700000u);
  for (const std::unique_ptr<Backend> &backend : backends()) {
    std::vector<std::vector<char>> buffers(2, std::vector<char>(bits.size() * 4));
    std::memcpy(buffers[0].data(), bits.data(), buffers[0].size());
    llvm::Error error = runKernel(*backend, *module, "k", buffers, {}, {static_cast<int64_t>(bits.size() / 32), 1, 1});
    ASSERT_FALSE(static_cast<bool>(error)) << llvm::toString(std::move(error));
    std::vector<uint32_t> found(bits.size());
    std::memcpy(found.data(), buffers[1].data(), buffers[1].size());
    for (size_t i = 0; i < bits.size(); ++i)
      ASSERT_EQ(found[i], std::bit_cast<uint32_t>(portable_exp(std::bit_cast<float>(bits[i]))))
          << backend->name().str() << ": exp of bits " << std::hex << bits[i];
  }
}

TEST(PortableMath, ExpIsAccurateAndClamped) {
  for (float x = -87; x < 87; x += 0.01f)
    EXPECT_NEAR(portable_exp(x) / std::exp(static_cast<double>(x)), 1, 2e-7) << x;
  EXPECT_EQ(portable_exp(0.0f), 1.0f);
  EXPECT_EQ(portable_exp(-0.0f), 1.0f);
  EXPECT_EQ(portable_exp(-INFINITY), portable_exp(-87.0f));
  EXPECT_EQ(portable_exp(INFINITY), portable_exp(87.0f));
  EXPECT_TRUE(std::isnormal(portable_exp(-INFINITY)));
  EXPECT_TRUE(std::isnormal(portable_exp(INFINITY)));
}

} // namespace
} // namespace freeport
