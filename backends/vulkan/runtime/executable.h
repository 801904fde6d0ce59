// Loaded kernels: each a pipeline with the layout that backends/vulkan/executable.fbs describes.
#pragma once

#include "backends/vulkan/runtime/pipeline_cache.h"

#include <cstddef>
#include <span>

namespace freeport::vulkan {

constexpr uint32_t kExecutableVersion = 1;

struct MemoryPiece {
  uint64_t offset, bytes; ///< bytes 0: to the memory's end
};

struct LoadedArgument {
  std::vector<MemoryPiece> pieces;
  bool written = false;
};

struct LoadedKernel {
  std::string name;
  std::vector<LoadedArgument> arguments;
  uint32_t scalars = 0;
  VkDescriptorSetLayout set_layout = VK_NULL_HANDLE;
  VkPipelineLayout layout = VK_NULL_HANDLE;
  VkPipeline pipeline = VK_NULL_HANDLE;

  /// Descriptors of one dispatch, `params` included.
  uint32_t descriptors() const;
};

class Executable {
public:
  /// Checks the content and compiles the named kernels, in the order of the names. kCorrupt for what does not follow
  /// the format, kUnsupported for what the device lacks.
  static Result<std::unique_ptr<Executable>> load(Context &context, VkPipelineCache cache,
                                                  std::span<const std::byte> content, uint32_t version,
                                                  std::span<const char *const> kernel_names);
  ~Executable();
  Executable(const Executable &) = delete;

  std::span<const LoadedKernel> kernels() const { return kernels_; }

private:
  explicit Executable(Context &context) : context_(context) {}

  Context &context_;
  std::vector<LoadedKernel> kernels_;
};

} // namespace freeport::vulkan
