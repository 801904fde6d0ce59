// The Vulkan objects of a recording: params, descriptors, commands.
#include "backends/vulkan/runtime/recording.h"

#include <cstring>

namespace freeport::vulkan {

Recording::~Recording() {
  const VolkDeviceTable &vk = context_.vk;
  if (commands_)
    vk.vkFreeCommandBuffers(context_.handle, context_.commands, 1, &commands_);
  vk.vkDestroyFence(context_.handle, fence_, nullptr);
  vk.vkDestroyQueryPool(context_.handle, queries_, nullptr);
  vk.vkDestroyDescriptorPool(context_.handle, descriptors_, nullptr);
  pool_.release(params_);
}

/// Makes everything that a replay needs, without writing to it yet.
Status Recording::make_objects() {
  if (dispatches_ == 0)
    return Status();
  params_bytes_ = constants_.size() * sizeof(uint32_t);
  FP_ASSIGN_OR_RETURN(params_, pool_.allocate(params_bytes_, Use::upload));
  mapped_ = reinterpret_cast<uint32_t *>(params_.writable());
  std::memcpy(mapped_, constants_.data(), params_bytes_);

  const VolkDeviceTable &vk = context_.vk;
  const VkDescriptorPoolSize size = {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, uint32_t(windows_.size() + dispatches_)};
  VkDescriptorPoolCreateInfo pool =
      structure<VkDescriptorPoolCreateInfo>(VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO);
  pool.maxSets = uint32_t(dispatches_);
  pool.poolSizeCount = 1;
  pool.pPoolSizes = &size;
  FP_RETURN_IF_ERROR(
      context_.check(vk.vkCreateDescriptorPool(context_.handle, &pool, nullptr, &descriptors_), "making descriptors"));
  std::vector<VkDescriptorSetLayout> layouts;
  for (const LoadedKernel *kernel : steps_)
    if (kernel)
      layouts.push_back(kernel->set_layout);
  sets_.resize(dispatches_);
  VkDescriptorSetAllocateInfo info =
      structure<VkDescriptorSetAllocateInfo>(VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO);
  info.descriptorPool = descriptors_;
  info.descriptorSetCount = uint32_t(dispatches_);
  info.pSetLayouts = layouts.data();
  FP_RETURN_IF_ERROR(
      context_.check(vk.vkAllocateDescriptorSets(context_.handle, &info, sets_.data()), "making descriptors"));

  FP_ASSIGN_OR_RETURN(fence_, context_.make_fence());
  FP_ASSIGN_OR_RETURN(commands_, context_.make_command_buffer());
  if (context_.timings && dispatches_) {
    VkQueryPoolCreateInfo info = structure<VkQueryPoolCreateInfo>(VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO);
    info.queryType = VK_QUERY_TYPE_TIMESTAMP;
    info.queryCount = uint32_t(dispatches_) + 1;
    FP_RETURN_IF_ERROR(
        context_.check(vk.vkCreateQueryPool(context_.handle, &info, nullptr, &queries_), "making timestamps"));
    ticks_.resize(dispatches_ + 1);
  }
  return Status();
}

/// Points the descriptors at the windows.
void Recording::write_sets() {
  const VkDescriptorBufferInfo params = {params_.buffer(), params_.offset, params_bytes_};
  std::vector<VkWriteDescriptorSet> writes;
  const VkDescriptorBufferInfo *window = windows_.data();
  size_t dispatch = 0;
  for (const LoadedKernel *kernel : steps_) {
    if (!kernel)
      continue;
    VkWriteDescriptorSet write = structure<VkWriteDescriptorSet>(VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET);
    write.dstSet = sets_[dispatch++];
    write.descriptorCount = 1;
    write.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    write.pBufferInfo = &params;
    writes.push_back(write);
    for (const LoadedArgument &argument : kernel->arguments) {
      ++write.dstBinding;
      write.descriptorCount = uint32_t(argument.pieces.size());
      write.pBufferInfo = window;
      window += argument.pieces.size();
      writes.push_back(write);
    }
  }
  context_.vk.vkUpdateDescriptorSets(context_.handle, uint32_t(writes.size()), writes.data(), 0, nullptr);
}

Status Recording::write_commands() {
  const VolkDeviceTable &vk = context_.vk;
  const VkCommandBufferBeginInfo begin =
      structure<VkCommandBufferBeginInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO);
  FP_RETURN_IF_ERROR(context_.check(vk.vkBeginCommandBuffer(commands_, &begin), "recording"));
  ++context_.counters.recordings;
  full_barrier(context_, commands_);
  if (queries_) {
    vk.vkCmdResetQueryPool(commands_, queries_, 0, uint32_t(dispatches_) + 1);
    vk.vkCmdWriteTimestamp(commands_, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries_, 0);
  }
  VkMemoryBarrier barrier = structure<VkMemoryBarrier>(VK_STRUCTURE_TYPE_MEMORY_BARRIER);
  barrier.srcAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT;
  barrier.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT;
  VkPipeline bound = VK_NULL_HANDLE;
  uint32_t dispatch = 0;
  for (const LoadedKernel *kernel : steps_) {
    if (!kernel) {
      vk.vkCmdPipelineBarrier(commands_, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, 0,
                              1, &barrier, 0, nullptr, 0, nullptr);
      continue;
    }
    if (bound != kernel->pipeline)
      vk.vkCmdBindPipeline(commands_, VK_PIPELINE_BIND_POINT_COMPUTE, kernel->pipeline);
    bound = kernel->pipeline;
    vk.vkCmdBindDescriptorSets(commands_, VK_PIPELINE_BIND_POINT_COMPUTE, kernel->layout, 0, 1, &sets_[dispatch], 0,
                               nullptr);
    const uint32_t base = blocks_[dispatch++];
    vk.vkCmdPushConstants(commands_, kernel->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof base, &base);
    vk.vkCmdDispatchIndirect(commands_, params_.buffer(), params_.offset + base * sizeof(uint32_t));
    if (queries_)
      vk.vkCmdWriteTimestamp(commands_, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries_, dispatch);
  }
  full_barrier(context_, commands_);
  return context_.check(vk.vkEndCommandBuffer(commands_), "recording");
}

} // namespace freeport::vulkan
