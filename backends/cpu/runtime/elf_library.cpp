// Loading of elf_library.h. Headers are read by copies, since nothing says how the bytes are aligned.
#include "backends/cpu/runtime/elf_library.h"

#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

namespace freeport::cpu {
namespace {

#if defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
constexpr const char *kMachineName = "aarch64";
#else
constexpr uint16_t kMachine = EM_X86_64;
constexpr const char *kMachineName = "x86-64";
#endif

Status corrupt(const std::string &what) { return Status(Code::kCorrupt, "cpu executable: " + what); }

Status check(std::span<const std::byte> content) {
  Elf64_Ehdr header;
  if (content.size() < sizeof(header))
    return corrupt("expects an ELF header of 64 bytes, got " + std::to_string(content.size()) + " bytes");
  memcpy(&header, content.data(), sizeof(header));
  if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_type != ET_DYN || header.e_machine != kMachine)
    return corrupt(std::string("expects an ELF shared object for ") + kMachineName + ", got other bytes");
  uint64_t size = content.size(), table = uint64_t(header.e_phnum) * sizeof(Elf64_Phdr);
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 || header.e_phoff > size ||
      table > size - header.e_phoff)
    return corrupt("expects a program header table inside its " + std::to_string(size) + " bytes");
  for (uint64_t number = 0; number < header.e_phnum; ++number) {
    Elf64_Phdr segment;
    memcpy(&segment, content.data() + header.e_phoff + number * sizeof(segment), sizeof(segment));
    if (segment.p_offset > size || segment.p_filesz > size - segment.p_offset)
      return corrupt("expects segment " + std::to_string(number) + " inside its " + std::to_string(size) + " bytes");
  }
  return {};
}

} // namespace

Result<ElfLibrary> ElfLibrary::load(std::span<const std::byte> content) {
  FP_RETURN_IF_ERROR(check(content));
  int file = memfd_create("freeport-kernels", MFD_CLOEXEC);
  if (file < 0)
    return Status(Code::kIo, std::string("cpu executable: memfd_create: ") + strerror(errno));
  ElfLibrary library(file, nullptr);
  for (size_t done = 0; done < content.size();) {
    ssize_t count = write(file, content.data() + done, content.size() - done);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return Status(Code::kIo, std::string("cpu executable: write: ") + strerror(errno));
    done += static_cast<size_t>(count);
  }
  // The loader takes libraries of one path for one library: the descriptor stays open, so that its path stays this
  // one's.
  std::string path = "/proc/self/fd/" + std::to_string(file);
  library.handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library.handle_)
    return corrupt(dlerror());
  return library;
}

ElfLibrary::ElfLibrary(ElfLibrary &&other) noexcept
    : file_(std::exchange(other.file_, -1)), handle_(std::exchange(other.handle_, nullptr)) {}

ElfLibrary &ElfLibrary::operator=(ElfLibrary &&other) noexcept {
  std::swap(file_, other.file_);
  std::swap(handle_, other.handle_);
  return *this;
}

ElfLibrary::~ElfLibrary() {
  if (handle_)
    dlclose(handle_);
  if (file_ >= 0)
    close(file_);
}

void *ElfLibrary::find(const char *name) const { return dlsym(handle_, name); }

} // namespace freeport::cpu
