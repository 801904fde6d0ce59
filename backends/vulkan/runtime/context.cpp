// Creation, submission and loss of a device.
#include "backends/vulkan/runtime/context.h"

namespace freeport::vulkan {

Result<std::unique_ptr<Context>> Context::create(const Capabilities &capabilities, bool timings) {
  std::unique_ptr<Context> context(new Context);
  context->capabilities = capabilities;
  context->exact_windows = capabilities.validates;
  context->timings = timings && capabilities.timestamps;
  FP_ASSIGN_OR_RETURN(context->handle, create_device(capabilities));
  volkLoadDeviceTable(&context->vk, context->handle);
  context->vk.vkGetDeviceQueue(context->handle, uint32_t(capabilities.queue_family), 0, &context->queue);
  VkCommandPoolCreateInfo pool = structure<VkCommandPoolCreateInfo>(VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO);
  pool.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
  pool.queueFamilyIndex = uint32_t(capabilities.queue_family);
  FP_RETURN_IF_ERROR(context->check(
      context->vk.vkCreateCommandPool(context->handle, &pool, nullptr, &context->commands), "making a command pool"));
  return context;
}

Context::~Context() {
  if (!handle)
    return;
  vk.vkDeviceWaitIdle(handle);
  vk.vkDestroyCommandPool(handle, commands, nullptr);
  vk.vkDestroyDevice(handle, nullptr);
}

Status Context::check(VkResult result, const char *what) {
  lost_ |= result == VK_ERROR_DEVICE_LOST;
  return vulkan_status(result, what);
}

Status Context::usable() const { return lost_ ? vulkan_status(VK_ERROR_DEVICE_LOST, "earlier") : Status(); }

Result<VkCommandBuffer> Context::make_command_buffer() {
  VkCommandBufferAllocateInfo info =
      structure<VkCommandBufferAllocateInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO);
  info.commandPool = commands;
  info.commandBufferCount = 1;
  VkCommandBuffer buffer;
  FP_RETURN_IF_ERROR(check(vk.vkAllocateCommandBuffers(handle, &info, &buffer), "making a command buffer"));
  return buffer;
}

Result<VkFence> Context::make_fence() {
  const VkFenceCreateInfo info = structure<VkFenceCreateInfo>(VK_STRUCTURE_TYPE_FENCE_CREATE_INFO);
  VkFence fence;
  FP_RETURN_IF_ERROR(check(vk.vkCreateFence(handle, &info, nullptr, &fence), "making a fence"));
  return fence;
}

Status Context::submit(VkCommandBuffer buffer, VkFence fence) {
  FP_RETURN_IF_ERROR(usable());
  VkSubmitInfo info = structure<VkSubmitInfo>(VK_STRUCTURE_TYPE_SUBMIT_INFO);
  info.commandBufferCount = 1;
  info.pCommandBuffers = &buffer;
  return check(vk.vkQueueSubmit(queue, 1, &info, fence), "submitting work");
}

Status Context::wait(VkFence fence) {
  FP_RETURN_IF_ERROR(check(vk.vkWaitForFences(handle, 1, &fence, VK_TRUE, UINT64_MAX), "waiting for the device"));
  return check(vk.vkResetFences(handle, 1, &fence), "waiting for the device");
}

void full_barrier(const Context &context, VkCommandBuffer buffer) {
  VkMemoryBarrier barrier = structure<VkMemoryBarrier>(VK_STRUCTURE_TYPE_MEMORY_BARRIER);
  barrier.srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT | VK_ACCESS_HOST_WRITE_BIT;
  barrier.dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT | VK_ACCESS_HOST_READ_BIT;
  constexpr VkPipelineStageFlags kAll = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT;
  context.vk.vkCmdPipelineBarrier(buffer, kAll, kAll, 0, 1, &barrier, 0, nullptr, 0, nullptr);
}

} // namespace freeport::vulkan
