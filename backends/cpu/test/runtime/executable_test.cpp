// Bytes that are no executable are refused with a reason before the dynamic loader sees them. Real executables are
// loaded by test/conformance, which has a compiler.
#include "backends/cpu/runtime/executable.h"
#include "runtime/registry.h"

#include <cstring>
#include <elf.h>
#include <gtest/gtest.h>
#include <vector>

namespace freeport::cpu {
namespace {

#if defined(__aarch64__)
constexpr Elf64_Half kMachine = EM_AARCH64, kOtherMachine = EM_X86_64;
constexpr const char *kMachineName = "aarch64", *kBaseline = "aarch64-neon", *kOtherTarget = "x86-64-v3";
constexpr const char *kOtherReason = "expects an executable for aarch64", *kCondition = "neon";
#else
constexpr Elf64_Half kMachine = EM_X86_64, kOtherMachine = EM_AARCH64;
constexpr const char *kMachineName = "x86-64", *kBaseline = "x86-64-v3", *kOtherTarget = "aarch64-neon";
constexpr const char *kOtherReason = "expects an executable for x86-64-v3 or more", *kCondition = "avx2";
#endif

/// A shared object of one segment that covers its header and program header.
std::vector<std::byte> smallest() {
  Elf64_Ehdr header = {};
  memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_DYN;
  header.e_machine = kMachine;
  header.e_phoff = sizeof(header);
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 1;
  Elf64_Phdr segment = {};
  segment.p_type = PT_LOAD;
  segment.p_filesz = sizeof(header) + sizeof(segment);
  std::vector<std::byte> bytes(sizeof(header) + sizeof(segment));
  memcpy(bytes.data(), &header, sizeof(header));
  memcpy(bytes.data() + sizeof(header), &segment, sizeof(segment));
  return bytes;
}

std::string refusal(std::span<const std::byte> bytes, uint32_t version = kExecutableVersion) {
  auto loaded = load_executable(bytes, version, {});
  return loaded.ok() ? "loads" : loaded.status().message();
}

template <typename T> std::vector<std::byte> with(size_t offset, T value) {
  std::vector<std::byte> bytes = smallest();
  memcpy(bytes.data() + offset, &value, sizeof(value));
  return bytes;
}

void expect_refusal(const std::vector<std::byte> &bytes, const char *reason) {
  EXPECT_NE(refusal(bytes).find(reason), std::string::npos) << refusal(bytes);
}

TEST(CpuExecutable, RefusesOtherVersions) {
  EXPECT_EQ(refusal(smallest(), 7), "cpu executable: expects version 1, got 7; compile the model again");
}

TEST(CpuExecutable, RefusesTruncatedHeaders) {
  std::vector<std::byte> bytes = smallest();
  EXPECT_EQ(refusal({}), "cpu executable: expects an ELF header of 64 bytes, got 0 bytes");
  EXPECT_EQ(refusal(std::span(bytes).first(63)), "cpu executable: expects an ELF header of 64 bytes, got 63 bytes");
  EXPECT_EQ(refusal(std::span(bytes).first(119)),
            "cpu executable: expects a program header table inside its 119 bytes");
}

TEST(CpuExecutable, RefusesOtherFiles) {
  const std::string text = std::string("expects an ELF shared object for ") + kMachineName;
  const char *reason = text.c_str();
  expect_refusal(with(0, 'x'), reason);
  expect_refusal(with(EI_CLASS, char(ELFCLASS32)), reason);
  expect_refusal(with(offsetof(Elf64_Ehdr, e_type), Elf64_Half(ET_EXEC)), reason);
  expect_refusal(with(offsetof(Elf64_Ehdr, e_machine), kOtherMachine), reason);
}

TEST(CpuExecutable, RefusesTablesAndSegmentsOutside) {
  const char *reason = "expects a program header table inside";
  expect_refusal(with(offsetof(Elf64_Ehdr, e_phoff), uint64_t(65)), reason);
  expect_refusal(with(offsetof(Elf64_Ehdr, e_phoff), ~uint64_t(0)), reason);
  expect_refusal(with(offsetof(Elf64_Ehdr, e_phnum), Elf64_Half(0)), reason);
  expect_refusal(with(offsetof(Elf64_Ehdr, e_phnum), Elf64_Half(0xffff)), reason);
  reason = "expects segment 0 inside";
  expect_refusal(with(sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_filesz), uint64_t(121)), reason);
  expect_refusal(with(sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_filesz), ~uint64_t(0)), reason);
  expect_refusal(with(sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_offset), ~uint64_t(0)), reason);
}

TEST(CpuExecutable, TheLoadersRefusalIsAStatus) {
  EXPECT_NE(refusal(smallest()), "loads"); // no dynamic section
}

TEST(CpuDevice, RejectsOtherTargetsAndConditions) {
  const fp_device_api *api = find_device_api("cpu");
  ASSERT_NE(api, nullptr);
  const char *unknown[] = {kCondition, "levitation"};
  EXPECT_STREQ(api->rejects(nullptr, kOtherTarget, nullptr, 0), kOtherReason);
  EXPECT_STREQ(api->rejects(nullptr, kBaseline, unknown, 2), "expects instructions that this processor does not offer");
  EXPECT_EQ(api->rejects(nullptr, kBaseline, unknown, 1), nullptr);
}

} // namespace
} // namespace freeport::cpu
