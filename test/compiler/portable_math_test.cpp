// The host's exp against the compiler's, run as a kernel by every backend, the reference first: equal bits.
#include "compiler/lowering/Register.h"
#include "dialects/kernel/Emit.h"
#include "runtime/portable_math.h"
#include "test/conformance/RunKernel.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>

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

/// A kernel @k of `exp`, a program for each 32 elements.
OwningOpRef<ModuleOp> expKernel(MLIRContext &context, bool native) {
  DialectRegistry registry;
  registerDialects(registry);
  context.appendDialectRegistry(registry);
  context.loadAllAvailableDialects();
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
  module->walk([&](kernel::StoreLanesOp store) {
    OpBuilder builder(store);
    store.getValueMutable().assign(kernel::Emit(builder, store.getLoc(), native).exp(store.getValue()));
  });
  return module;
}

TEST(PortableMath, ExpEqualsTheKernels) {
  MLIRContext context(MLIRContext::Threading::DISABLED);
  OwningOpRef<ModuleOp> module = expKernel(context, /*native=*/false);
  const std::vector<uint32_t> bits = inputs();
  ASSERT_GT(bits.size(), 700000u);
  for (const std::unique_ptr<Backend> &backend : backends())
    for (const std::string &profile : backend->profiles()) {
      std::vector<std::vector<char>> buffers(2, std::vector<char>(bits.size() * 4));
      std::memcpy(buffers[0].data(), bits.data(), buffers[0].size());
      auto ran =
          runKernel(*backend, profile, *module, "k", buffers, {}, {static_cast<int64_t>(bits.size() / 32), 1, 1});
      ASSERT_TRUE(static_cast<bool>(ran)) << llvm::toString(ran.takeError());
      if (!*ran)
        continue;
      std::vector<uint32_t> found(bits.size());
      std::memcpy(found.data(), buffers[1].data(), buffers[1].size());
      for (size_t i = 0; i < bits.size(); ++i) {
        const bool signalling = (bits[i] & 0x7FC00000) == 0x7F800000 && (bits[i] & 0x003FFFFF);
        if (!signalling) {
          ASSERT_EQ(found[i], std::bit_cast<uint32_t>(portable_exp(std::bit_cast<float>(bits[i]))))
              << backend->name().str() << ": exp of bits " << std::hex << bits[i];
        }
      }
    }
}

/// exp of `fast` numerics: near, and on the reference the portable one.
TEST(PortableMath, NativeExpIsNear) {
  MLIRContext context(MLIRContext::Threading::DISABLED);
  OwningOpRef<ModuleOp> module = expKernel(context, /*native=*/true);
  (*module)->setAttr(kFastNumerics, UnitAttr::get(&context));
  std::vector<float> x;
  for (int i = -100 * 512; i < 100 * 512; ++i) // beyond the clamp as well
    x.push_back(static_cast<float>(i) / 512 + 1.0f / 30000);
  for (const std::unique_ptr<Backend> &backend : backends())
    for (const std::string &profile : backend->profiles()) {
      std::vector<std::vector<char>> buffers(2, std::vector<char>(x.size() * 4));
      std::memcpy(buffers[0].data(), x.data(), buffers[0].size());
      auto ran = runKernel(*backend, profile, *module, "k", buffers, {}, {static_cast<int64_t>(x.size() / 32), 1, 1});
      ASSERT_TRUE(static_cast<bool>(ran)) << llvm::toString(ran.takeError());
      std::vector<float> found(x.size());
      std::memcpy(found.data(), buffers[1].data(), buffers[1].size());
      for (size_t i = 0; *ran && i < x.size(); ++i) {
        const double clamped = std::clamp(x[i], -87.0f, 87.0f), expected = std::exp(clamped);
        // As much as Vulkan allows: 3 + 2 |x| units in the last place.
        ASSERT_NEAR(found[i] / expected, 1, (3 + 2 * std::abs(clamped)) * 0x1p-23)
            << backend->name().str() << " " << profile << ": exp of " << x[i];
        if (backend->name() == "reference") {
          ASSERT_EQ(found[i], portable_exp(x[i]));
        }
      }
    }
}

/// IEEE's quotient, root and conversions of this processor against those of every backend: corners of the exponent and
/// the mantissa, then random bits. NaNs need only be NaNs.
TEST(PortableMath, DivisionRootsAndHalvesAreExact) {
  MLIRContext context(MLIRContext::Threading::DISABLED);
  DialectRegistry registry;
  registerDialects(registry);
  context.appendDialectRegistry(registry);
  context.loadAllAvailableDialects();
  auto module = parseSourceString<ModuleOp>(R"(
    kernel.func @k(%a: !kernel.buffer<f32>, %b: !kernel.buffer<f32>, %quotient: !kernel.buffer<f32>,
                   %root: !kernel.buffer<f32>, %half: !kernel.buffer<f32>) {
      %p = kernel.program_id x
      %c32 = arith.constant 32 : index
      %at = arith.muli %p, %c32 : index
      %x = kernel.load_lanes %a[%at] : !kernel.buffer<f32> -> vector<32xf32>
      %y = kernel.load_lanes %b[%at] : !kernel.buffer<f32> -> vector<32xf32>
      %q = arith.divf %x, %y : vector<32xf32>
      kernel.store_lanes %q, %quotient[%at] : vector<32xf32>, !kernel.buffer<f32>
      %r = kernel.sqrt %x : vector<32xf32>
      kernel.store_lanes %r, %root[%at] : vector<32xf32>, !kernel.buffer<f32>
      %h = arith.truncf %x : vector<32xf32> to vector<32xf16>
      %w = arith.extf %h : vector<32xf16> to vector<32xf32>
      kernel.store_lanes %w, %half[%at] : vector<32xf32>, !kernel.buffer<f32>
      kernel.return
    })",
                                            &context);
  ASSERT_TRUE(module);
  std::vector<uint32_t> corners;
  for (uint32_t exponent : {0, 1, 2, 23, 24, 102, 103, 112, 113, 126, 127, 128, 142, 143, 150, 253, 254, 255})
    for (uint32_t mantissa :
         {0x000000, 0x000001, 0x000FFF, 0x001000, 0x001001, 0x003000, 0x2AAAAA, 0x400000, 0x7FFFFE, 0x7FFFFF})
      for (uint32_t sign : {0u, 0x80000000u})
        corners.push_back(sign | exponent << 23 | mantissa);
  std::vector<uint32_t> a, b;
  for (uint32_t x : corners)
    for (uint32_t y : corners)
      a.push_back(x), b.push_back(y);
  std::mt19937 random(7);
  while (a.size() < 400000) {
    uint32_t x = random(), y = random();
    if (a.size() % 2) // exponents near each other, so that quotients are of ordinary size
      y = (y & 0x807FFFFF) | (x & 0x7F800000);
    a.push_back(x), b.push_back(y);
  }
  a.resize(a.size() / 32 * 32);
  b.resize(a.size());
  for (const std::unique_ptr<Backend> &backend : backends())
    for (const std::string &profile : backend->profiles()) {
      std::vector<std::vector<char>> buffers(5, std::vector<char>(a.size() * 4));
      std::memcpy(buffers[0].data(), a.data(), buffers[0].size());
      std::memcpy(buffers[1].data(), b.data(), buffers[1].size());
      auto ran = runKernel(*backend, profile, *module, "k", buffers, {}, {static_cast<int64_t>(a.size() / 32), 1, 1});
      ASSERT_TRUE(static_cast<bool>(ran)) << llvm::toString(ran.takeError());
      for (size_t i = 0; *ran && i < a.size(); ++i) {
        const float x = std::bit_cast<float>(a[i]), y = std::bit_cast<float>(b[i]);
        const float expected[] = {x / y, std::sqrt(x), static_cast<float>(static_cast<_Float16>(x))};
        for (int result = 0; result < 3; ++result) {
          float found;
          std::memcpy(&found, buffers[2 + result].data() + 4 * i, 4);
          if (std::isnan(expected[result]))
            ASSERT_TRUE(std::isnan(found))
                << backend->name().str() << " " << profile << " " << result << " of " << x << " and " << y;
          else
            ASSERT_EQ(std::bit_cast<uint32_t>(found), std::bit_cast<uint32_t>(expected[result]))
                << backend->name().str() << " " << profile << " " << result << " of " << std::hex << a[i] << " and "
                << b[i];
        }
      }
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
