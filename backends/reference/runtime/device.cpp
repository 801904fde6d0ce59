// The reference device: host memory, shared machinery of runtime/host_device.h, the interpreter for each range of
// programs.
#include "backends/reference/runtime/interpreter.h"
#include "runtime/host_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <string_view>
#include <thread>

namespace freeport::reference {
namespace {

class ReferenceExecutable : public HostExecutable {
public:
  ReferenceExecutable(Interpreter interpreter, std::vector<const Program *> kernels)
      : interpreter_(std::move(interpreter)), kernels_(std::move(kernels)),
        places_(std::max(std::thread::hardware_concurrency(), 1u)) {
    for (Place &place : places_)
      for (const Program *kernel : kernels_)
        place.scratch.reserve(*kernel);
  }

  Status check(uint32_t kernel, size_t bindings, size_t scalars) const override {
    const Program &program = *kernels_[kernel];
    if (bindings == program.arguments && scalars == program.scalar_offsets.size())
      return {};
    return Status(Code::kCorrupt,
                  fmt::format("reference bytecode: expects {} bindings and {} scalars for kernel '{}', "
                              "got {} and {}",
                              program.arguments, program.scalar_offsets.size(), program.name, bindings, scalars));
  }

  void run(uint32_t kernel, const HostDispatch &dispatch, int64_t first, int64_t last) const override {
    // A device has no more threads than there are processors, so a place is free, now or in a moment.
    for (size_t i = 0;; i = (i + 1) % places_.size()) {
      if (places_[i].taken.test_and_set(std::memory_order_acquire))
        continue;
      Interpreter::run(*kernels_[kernel], dispatch, first, last, places_[i].scratch);
      return places_[i].taken.clear(std::memory_order_release);
    }
  }

private:
  /// Where a thread runs: made before the first step, so that no thread allocates whenever it joins in.
  struct Place {
    std::atomic_flag taken;
    Scratch scratch;
  };

  Interpreter interpreter_; // owns what kernels_ points to
  std::vector<const Program *> kernels_;
  mutable std::vector<Place> places_;
};

struct ReferenceTraits {
  static constexpr const char *name = "reference";

  static const char *rejects(const char *target, const char *const *, size_t count) {
    if (std::string_view(target) != "bytecode")
      return "the reference device runs the target 'bytecode'";
    return count ? "the reference device offers nothing that a condition could name" : nullptr;
  }

  static Result<std::unique_ptr<HostExecutable>> load(std::span<const std::byte> content, uint32_t version,
                                                      std::span<const char *const> kernel_names) {
    FP_ASSIGN_OR_RETURN(Interpreter interpreter, Interpreter::create(content, version));
    std::vector<const Program *> kernels;
    for (const char *kernel_name : kernel_names) {
      FP_ASSIGN_OR_RETURN(const Program *kernel, interpreter.find(kernel_name));
      kernels.push_back(kernel);
    }
    return std::unique_ptr<HostExecutable>(new ReferenceExecutable(std::move(interpreter), std::move(kernels)));
  }
};

} // namespace
} // namespace freeport::reference

extern "C" const fp_device_api *freeport_reference_device(void) {
  return freeport::host_device_api<freeport::reference::ReferenceTraits>();
}
