// Checks of the FlatBuffer first, then layouts, then pipelines: in parallel, since a driver's compiler takes its time.
#include "backends/vulkan/runtime/executable.h"

#include "backends/vulkan/executable_generated.h"
#include "backends/vulkan/runtime/spirv.h"

#include <fmt/format.h>
#include <tbb/parallel_for.h>

#include <algorithm>

namespace freeport::vulkan {
namespace {

/// Offsets beyond this are mistakes, and sums of a few of them stay within 64 bits.
constexpr uint64_t kLargestOffset = uint64_t(1) << 48;
constexpr uint64_t kPieceAlignment = 256;

Status corrupt(std::string_view kernel, std::string_view what) {
  return Status(Code::kCorrupt, fmt::format("vulkan executable: kernel '{}': expects {}", kernel, what));
}

/// A checked kernel without its pipeline.
Result<LoadedKernel> check_kernel(const Kernel &from, const Capabilities &device) {
  LoadedKernel kernel;
  kernel.name = from.name()->str();
  kernel.scalars = from.scalars();
  uint64_t descriptors = 1;
  for (const Argument *argument : *from.arguments()) {
    LoadedArgument &made = kernel.arguments.emplace_back();
    made.written = argument->written();
    if (argument->pieces()->size() == 0)
      return corrupt(kernel.name, "a piece of memory for each argument, got none");
    // The FlatBuffers verifier aligns a vector's length, not the 64-bit members of the structs behind it.
    if (reinterpret_cast<uintptr_t>(argument->pieces()->Data()) % alignof(Piece) != 0)
      return corrupt(kernel.name, "pieces that are aligned");
    descriptors += argument->pieces()->size();
    for (const Piece *piece : *argument->pieces()) {
      if (piece->offset() % kPieceAlignment || piece->offset() > kLargestOffset || piece->bytes() > kLargestOffset)
        return corrupt(kernel.name, fmt::format("pieces at multiples of 256 bytes, got {} bytes at {}", piece->bytes(),
                                                piece->offset()));
      made.pieces.push_back({piece->offset(), piece->bytes()});
    }
  }
  const uint32_t most =
      std::min(device.limits.maxPerStageDescriptorStorageBuffers, device.limits.maxDescriptorSetStorageBuffers);
  if (descriptors > most)
    return Status(Code::kUnsupported, fmt::format("vulkan executable: kernel '{}': expects {} storage buffers, the "
                                                  "device '{}' allows {}",
                                                  kernel.name, descriptors, device.name, most));
  if (kernel.scalars > 4096)
    return corrupt(kernel.name, fmt::format("at most 4096 scalars, got {}", kernel.scalars));
  if (from.subgroup_size() && !offers_subgroup_size(device, from.subgroup_size()))
    return Status(Code::kUnsupported, fmt::format("vulkan executable: kernel '{}': expects subgroups of {} lanes, the "
                                                  "device '{}' does not offer them on demand",
                                                  kernel.name, from.subgroup_size(), device.name));
  const Status status =
      check_spirv({from.code()->data(), from.code()->size()}, uint32_t(kernel.arguments.size()) + 1, device);
  if (!status.ok())
    return Status(status.code(), fmt::format("vulkan executable: kernel '{}': {}", kernel.name, status.message()));
  return kernel;
}

Status make_layouts(Context &context, LoadedKernel &kernel) {
  std::vector<VkDescriptorSetLayoutBinding> bindings;
  auto add = [&](size_t descriptors) {
    bindings.push_back({uint32_t(bindings.size()), VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, uint32_t(descriptors),
                        VK_SHADER_STAGE_COMPUTE_BIT, nullptr});
  };
  add(1);
  for (const LoadedArgument &argument : kernel.arguments)
    add(argument.pieces.size());
  VkDescriptorSetLayoutCreateInfo set =
      structure<VkDescriptorSetLayoutCreateInfo>(VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO);
  set.bindingCount = uint32_t(bindings.size());
  set.pBindings = bindings.data();
  FP_RETURN_IF_ERROR(context.check(
      context.vk.vkCreateDescriptorSetLayout(context.handle, &set, nullptr, &kernel.set_layout), "making a layout"));
  const VkPushConstantRange base = {VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof(uint32_t)};
  VkPipelineLayoutCreateInfo layout =
      structure<VkPipelineLayoutCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO);
  layout.setLayoutCount = 1;
  layout.pSetLayouts = &kernel.set_layout;
  layout.pushConstantRangeCount = 1;
  layout.pPushConstantRanges = &base;
  return context.check(context.vk.vkCreatePipelineLayout(context.handle, &layout, nullptr, &kernel.layout),
                       "making a layout");
}

/// Thread-safe but for the memory of a lost device, which the caller notes.
VkResult make_pipeline(const Context &context, VkPipelineCache cache, const Kernel &from, LoadedKernel &kernel) {
  VkShaderModuleCreateInfo code = structure<VkShaderModuleCreateInfo>(VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO);
  code.codeSize = from.code()->size() * sizeof(uint32_t);
  code.pCode = from.code()->data();
  VkShaderModule module;
  if (VkResult result = context.vk.vkCreateShaderModule(context.handle, &code, nullptr, &module))
    return result;
  VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size =
      structure<VkPipelineShaderStageRequiredSubgroupSizeCreateInfo>(
          VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO);
  size.requiredSubgroupSize = from.subgroup_size();
  VkComputePipelineCreateInfo info =
      structure<VkComputePipelineCreateInfo>(VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO);
  info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  if (from.subgroup_size()) {
    info.stage.pNext = &size;
    info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
  }
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.module = module;
  info.stage.pName = "main";
  info.layout = kernel.layout;
  const VkResult result =
      context.vk.vkCreateComputePipelines(context.handle, cache, 1, &info, nullptr, &kernel.pipeline);
  context.vk.vkDestroyShaderModule(context.handle, module, nullptr);
  return result;
}

} // namespace

uint32_t LoadedKernel::descriptors() const {
  size_t count = 1;
  for (const LoadedArgument &argument : arguments)
    count += argument.pieces.size();
  return uint32_t(count);
}

Result<std::unique_ptr<Executable>> Executable::load(Context &context, VkPipelineCache cache,
                                                     std::span<const std::byte> content, uint32_t version,
                                                     std::span<const char *const> kernel_names) {
  FP_RETURN_IF_ERROR(context.usable());
  if (version != kExecutableVersion)
    return Status(Code::kUnsupported, fmt::format("vulkan executable: expects version {}, got {}; compile the model "
                                                  "again",
                                                  kExecutableVersion, version));
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t *>(content.data()), content.size());
  if (content.size() < 16 || reinterpret_cast<uintptr_t>(content.data()) % alignof(uint64_t) != 0 ||
      !VerifyModuleBuffer(verifier))
    return Status(Code::kCorrupt, "vulkan executable: expects kernels in a FlatBuffer of executable.fbs");
  const auto &all = *GetModule(content.data())->kernels();
  std::unique_ptr<Executable> executable(new Executable(context));
  std::vector<const Kernel *> sources;
  for (const char *name : kernel_names) {
    const Kernel *source = all.LookupByKey(name);
    if (!source)
      return Status(Code::kCorrupt,
                    fmt::format("vulkan executable: expects a kernel '{}', got none of that name", name));
    FP_ASSIGN_OR_RETURN(LoadedKernel kernel, check_kernel(*source, context.capabilities));
    executable->kernels_.push_back(std::move(kernel));
    sources.push_back(source);
    FP_RETURN_IF_ERROR(make_layouts(context, executable->kernels_.back()));
  }
  std::vector<VkResult> results(sources.size(), VK_SUCCESS);
  auto compile = [&](size_t i) { results[i] = make_pipeline(context, cache, *sources[i], executable->kernels_[i]); };
  // Mesa's software driver shares one context between pipelines without a lock.
  if (context.capabilities.type == VK_PHYSICAL_DEVICE_TYPE_CPU)
    for (size_t i = 0; i < sources.size(); ++i)
      compile(i);
  else
    tbb::parallel_for(size_t(0), sources.size(), compile);
  for (size_t i = 0; i < results.size(); ++i)
    if (Status status = context.check(results[i], "compiling kernels"); !status.ok())
      return Status(status.code(), fmt::format("{} (kernel '{}')", status.message(), executable->kernels_[i].name));
  return executable;
}

Executable::~Executable() {
  for (const LoadedKernel &kernel : kernels_) {
    context_.vk.vkDestroyPipeline(context_.handle, kernel.pipeline, nullptr);
    context_.vk.vkDestroyPipelineLayout(context_.handle, kernel.layout, nullptr);
    context_.vk.vkDestroyDescriptorSetLayout(context_.handle, kernel.set_layout, nullptr);
  }
}

} // namespace freeport::vulkan
