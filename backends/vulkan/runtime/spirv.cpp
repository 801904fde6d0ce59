// One walk over the instructions. Numbers are those of the SPIR-V specification, section 3; the grammar's own header is
// not installed on every machine.
#include "backends/vulkan/runtime/spirv.h"

#include <fmt/format.h>

#include <cstring>

namespace freeport::vulkan {
namespace {

constexpr uint32_t kMagic = 0x07230203, kVersion15 = 0x00010500, kVersion16 = 0x00010600;
constexpr uint32_t kLargestBound = 4'194'303; // universal limit of ids
constexpr size_t kHeaderWords = 5;

enum Op : uint32_t {
  kOpEntryPoint = 15,
  kOpExecutionMode = 16,
  kOpCapability = 17,
  kOpFunction = 54,
  kOpFunctionEnd = 56,
  kOpDecorate = 71,
};
constexpr uint32_t kMostWaves = 8; // of 32 invocations, that do a program together
constexpr uint32_t kGlCompute = 5, kLocalSize = 17, kBinding = 33, kDescriptorSet = 34;

/// Whether the device offers a capability; what is not listed is not used by Freeport and refused.
bool offers(uint32_t capability, const Capabilities &device) {
  switch (capability) {
  case 0: // Matrix
  case 1: // Shader
    return true;
  case 9: // Float16
    return device.float16;
  case 10: // Float64
    return device.float64;
  case 11: // Int64
    return device.int64;
  case 22: // Int16
    return device.int16;
  case 30: // StorageBufferArrayDynamicIndexing
    return device.array_indexing;
  case 39: // Int8
    return device.int8;
  case 61: // GroupNonUniform
    return device.subgroup & VK_SUBGROUP_FEATURE_BASIC_BIT;
  case 62: // GroupNonUniformVote
    return device.subgroup & VK_SUBGROUP_FEATURE_VOTE_BIT;
  case 63: // GroupNonUniformArithmetic
    return device.subgroup & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
  case 64: // GroupNonUniformBallot
    return device.subgroup & VK_SUBGROUP_FEATURE_BALLOT_BIT;
  case 65: // GroupNonUniformShuffle
    return device.subgroup & VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
  case 66: // GroupNonUniformShuffleRelative
    return device.subgroup & VK_SUBGROUP_FEATURE_SHUFFLE_RELATIVE_BIT;
  case 4433: // StorageBuffer16BitAccess
    return device.storage16;
  case 4448: // StorageBuffer8BitAccess
    return device.storage8;
  case 4466: // SignedZeroInfNanPreserve
    return device.preserve32;
  case 4467: // RoundingModeRTE
    return device.rte32;
  case 5345: // VulkanMemoryModel
    return device.memory_model;
  case 6022: // CooperativeMatrixKHR
    return !device.matrices.empty();
  case 6017: // DotProductInput4x8Bit
    return device.integer_dot && device.int8;
  case 6018: // DotProductInput4x8BitPacked
  case 6019: // DotProduct
    return device.integer_dot;
  default:
    return false;
  }
}

Status corrupt(std::string what) { return Status(Code::kCorrupt, "SPIR-V: expects " + std::move(what)); }

/// Whether the zero-terminated literal that starts `words` is "main".
bool is_main(std::span<const uint32_t> words) {
  return words.size() >= 2 && std::memcmp(words.data(), "main\0\0\0\0", 8) == 0;
}

} // namespace

Status check_spirv(std::span<const uint32_t> code, uint32_t bindings, const Capabilities &device) {
  if (code.size() < kHeaderWords || code[0] != kMagic)
    return corrupt(fmt::format("a header with the number {:08x}, got {} words that begin with {:08x}", kMagic,
                               code.size(), code.empty() ? 0 : code[0]));
  const uint32_t newest = device.version >= VK_API_VERSION_1_3 ? kVersion16 : kVersion15;
  if (code[1] < 0x00010000 || code[1] > newest || code[1] & 0xff0000ff)
    return Status(Code::kUnsupported,
                  fmt::format("SPIR-V: expects version 1.0 to 1.{}, got {:08x}", newest >> 8 & 0xff, code[1]));
  const uint32_t bound = code[3];
  if (bound == 0 || bound > kLargestBound || code[4] != 0)
    return corrupt(fmt::format("ids up to {}, got a bound of {}", kLargestBound, bound));
  uint32_t entry = 0, functions = 0, open_functions = 0;
  bool shader = false, sized = false;
  for (size_t at = kHeaderWords; at < code.size();) {
    const uint32_t words = code[at] >> 16, op = code[at] & 0xffff;
    if (words == 0 || words > code.size() - at)
      return corrupt(fmt::format("instructions inside {} words, got one of {} at word {}", code.size(), words, at));
    const auto operands = code.subspan(at + 1, words - 1);
    auto has = [&](size_t count) { return operands.size() >= count; };
    switch (op) {
    case kOpCapability:
      if (!has(1))
        return corrupt("a capability behind OpCapability");
      if (!offers(operands[0], device))
        return Status(Code::kUnsupported, fmt::format("SPIR-V: the kernel needs capability {}, which the device '{}' "
                                                      "does not offer",
                                                      operands[0], device.name));
      shader |= operands[0] == 1;
      break;
    case kOpEntryPoint:
      if (!has(4) || operands[0] != kGlCompute || operands[1] == 0 || operands[1] >= bound || entry ||
          !is_main(operands.subspan(2)))
        return corrupt("one entry point, a compute kernel called main");
      entry = operands[1];
      break;
    case kOpExecutionMode:
      if (!has(2) || operands[0] != entry || entry == 0)
        return corrupt("execution modes of the entry point");
      if (operands[1] == kLocalSize) {
        if (!has(5) || operands[2] != 32 || operands[3] == 0 || operands[3] > kMostWaves || operands[4] != 1)
          return corrupt(fmt::format("a local size of 32 x 1 x 1 to 32 x {} x 1", kMostWaves));
        if (operands[3] > device.limits.maxComputeWorkGroupSize[1] ||
            32 * operands[3] > device.limits.maxComputeWorkGroupInvocations)
          return Status(Code::kUnsupported,
                        fmt::format("SPIR-V: the kernel needs {} invocations in a workgroup, the "
                                    "device '{}' allows {}",
                                    32 * operands[3], device.name, device.limits.maxComputeWorkGroupInvocations));
        sized = true;
      }
      break;
    case kOpDecorate:
      if (!has(2) || operands[0] == 0 || operands[0] >= bound)
        return corrupt(fmt::format("decorated ids below {}", bound));
      if (operands[1] == kBinding && (!has(3) || operands[2] >= bindings))
        return corrupt(fmt::format("bindings below {}, got {}", bindings, has(3) ? operands[2] : 0));
      if (operands[1] == kDescriptorSet && (!has(3) || operands[2] != 0))
        return corrupt("buffers of descriptor set 0");
      break;
    case kOpFunction:
      if (!has(4) || operands[1] == 0 || operands[1] >= bound || open_functions)
        return corrupt("functions one behind the other");
      functions += operands[1] == entry;
      ++open_functions;
      break;
    case kOpFunctionEnd:
      if (open_functions == 0)
        return corrupt("functions that begin before they end");
      --open_functions;
      break;
    default:
      break;
    }
    at += words;
  }
  if (!shader || entry == 0 || !sized || functions != 1 || open_functions)
    return corrupt("the capability Shader, an entry point main, its local size and its function");
  return Status();
}

} // namespace freeport::vulkan
