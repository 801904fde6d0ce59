// Loading and running of executable.h.
#include "backends/cpu/runtime/executable.h"
#include "backends/cpu/runtime/elf_library.h"

#include <algorithm>
#include <vector>

namespace freeport::cpu {
namespace {

/// What backends/cpu/compiler makes of a kernel.func.
using Kernel = void (*)(void *const *bindings, const int64_t *scalars, int64_t x, int64_t y, int64_t z);

/// Bytes ahead of a single token's reads of weights that its kernels prefetch (docs/decisions/0010-prefetching.md).
int64_t prefetch_distance() {
#if defined(__x86_64__)
  if (__builtin_cpu_is("intel"))
    return 4608;
#endif
  return 0;
}

class CpuExecutable : public HostExecutable {
public:
  CpuExecutable(ElfLibrary library, std::vector<Kernel> kernels)
      : library_(std::move(library)), kernels_(std::move(kernels)) {}

  void run(uint32_t kernel, const HostDispatch &dispatch, int64_t first, int64_t last) const override {
    if (first >= last)
      return;
    Kernel function = kernels_[kernel];
    int64_t width = dispatch.grid[0], height = dispatch.grid[1];
    int64_t x = first % width, y = first / width % height, z = first / width / height;
    for (int64_t program = first; program < last; ++program) {
      function(dispatch.bindings, dispatch.scalars, x, y, z);
      if (++x == width) {
        x = 0;
        if (++y == height) {
          y = 0;
          ++z;
        }
      }
    }
  }

private:
  ElfLibrary library_;
  std::vector<Kernel> kernels_;
};

} // namespace

Result<std::unique_ptr<HostExecutable>> load_executable(std::span<const std::byte> content, uint32_t version,
                                                        std::span<const char *const> kernel_names) {
  if (version != kExecutableVersion)
    return Status(Code::kUnsupported, "cpu executable: expects version " + std::to_string(kExecutableVersion) +
                                          ", got " + std::to_string(version) + "; compile the model again");
  FP_ASSIGN_OR_RETURN(ElfLibrary library, ElfLibrary::load(content));
  std::vector<Kernel> kernels;
  for (const char *name : kernel_names) {
    void *address = library.find(name);
    if (!address)
      return Status(Code::kCorrupt,
                    std::string("cpu executable: expects a kernel '") + name + "', got none of that name");
    kernels.push_back(reinterpret_cast<Kernel>(address));
  }
  // 0 leaves the choice to this machine; bytes, or -1 for none, were measured for the package
  // (docs/decisions/0013-tuning.md).
  auto *distance = static_cast<int64_t *>(library.find("freeport_prefetch_distance"));
  if (distance)
    *distance = *distance == 0 ? prefetch_distance() : std::max<int64_t>(*distance, 0);
  return std::unique_ptr<HostExecutable>(new CpuExecutable(std::move(library), std::move(kernels)));
}

} // namespace freeport::cpu
