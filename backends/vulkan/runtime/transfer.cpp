// The staging ring of transfer.h.
#include "backends/vulkan/runtime/transfer.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace freeport::vulkan {
namespace {

constexpr uint64_t kStagingBytes = uint64_t(8) << 20;

} // namespace

Transfers::~Transfers() {
  for (Slot &slot : slots_) {
    if (slot.busy)
      (void)context_.wait(slot.fence);
    context_.vk.vkDestroyFence(context_.handle, slot.fence, nullptr);
    pool_.release(slot.staging);
  }
}

Result<Transfers::Slot *> Transfers::slot(size_t number, bool with_staging) {
  Slot &slot = slots_[number % 2];
  FP_RETURN_IF_ERROR(finish(slot));
  if (!slot.fence) {
    FP_ASSIGN_OR_RETURN(slot.fence, context_.make_fence());
  }
  if (!slot.commands) {
    FP_ASSIGN_OR_RETURN(slot.commands, context_.make_command_buffer());
  }
  if (with_staging && !slot.staging.block) {
    FP_ASSIGN_OR_RETURN(slot.staging, pool_.allocate(kStagingBytes, Use::staging));
  }
  return &slot;
}

Status Transfers::begin(Slot &slot) {
  VkCommandBufferBeginInfo info = structure<VkCommandBufferBeginInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO);
  info.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
  FP_RETURN_IF_ERROR(context_.check(context_.vk.vkBeginCommandBuffer(slot.commands, &info), "recording a transfer"));
  full_barrier(context_, slot.commands);
  return Status();
}

Status Transfers::submit(Slot &slot) {
  full_barrier(context_, slot.commands);
  FP_RETURN_IF_ERROR(context_.check(context_.vk.vkEndCommandBuffer(slot.commands), "recording a transfer"));
  FP_RETURN_IF_ERROR(context_.submit(slot.commands, slot.fence));
  ++context_.counters.transfers;
  slot.busy = true;
  return Status();
}

Status Transfers::finish(Slot &slot) {
  if (!slot.busy)
    return Status();
  slot.busy = false;
  return context_.wait(slot.fence);
}

Status Transfers::finish_all() {
  FP_RETURN_IF_ERROR(finish(slots_[0]));
  return finish(slots_[1]);
}

Status Transfers::write(const Slice &to, uint64_t offset, const void *from, uint64_t bytes) {
  FP_RETURN_IF_ERROR(context_.usable());
  if (bytes == 0)
    return Status();
  if (char *target = to.writable()) {
    std::memcpy(target + offset, from, bytes);
    return Status();
  }
  for (uint64_t done = 0; done < bytes; done += kStagingBytes) {
    const uint64_t size = std::min(kStagingBytes, bytes - done);
    FP_ASSIGN_OR_RETURN(Slot * slot, this->slot(done / kStagingBytes, true));
    std::memcpy(slot->staging.writable(), static_cast<const char *>(from) + done, size);
    FP_RETURN_IF_ERROR(begin(*slot));
    const VkBufferCopy region = {slot->staging.offset, to.offset + offset + done, size};
    context_.vk.vkCmdCopyBuffer(slot->commands, slot->staging.buffer(), to.buffer(), 1, &region);
    FP_RETURN_IF_ERROR(submit(*slot));
  }
  return finish_all();
}

Status Transfers::read(void *to, const Slice &from, uint64_t offset, uint64_t bytes) {
  FP_RETURN_IF_ERROR(context_.usable());
  if (bytes == 0)
    return Status();
  if (const char *source = from.readable()) {
    std::memcpy(to, source + offset, bytes);
    return Status();
  }
  auto size_at = [&](uint64_t at) { return std::min(kStagingBytes, bytes - at); };
  auto take = [&](Slot &slot, uint64_t at) -> Status {
    FP_RETURN_IF_ERROR(finish(slot));
    std::memcpy(static_cast<char *>(to) + at, slot.staging.writable(), size_at(at));
    return Status();
  };
  for (uint64_t done = 0; done < bytes; done += kStagingBytes) {
    FP_ASSIGN_OR_RETURN(Slot * slot, this->slot(done / kStagingBytes, true));
    FP_RETURN_IF_ERROR(begin(*slot));
    const VkBufferCopy region = {from.offset + offset + done, slot->staging.offset, size_at(done)};
    context_.vk.vkCmdCopyBuffer(slot->commands, from.buffer(), slot->staging.buffer(), 1, &region);
    FP_RETURN_IF_ERROR(submit(*slot));
    if (done)
      FP_RETURN_IF_ERROR(take(slots_[(done / kStagingBytes - 1) % 2], done - kStagingBytes));
  }
  const uint64_t last = (bytes - 1) / kStagingBytes;
  return take(slots_[last % 2], last * kStagingBytes);
}

Status Transfers::copy(const Slice &to, uint64_t to_offset, const Slice &from, uint64_t from_offset, uint64_t bytes) {
  FP_RETURN_IF_ERROR(context_.usable());
  if (bytes == 0)
    return Status();
  char *target = to.writable();
  const char *source = from.readable();
  if (target && source) {
    std::memmove(target + to_offset, source + from_offset, bytes);
    return Status();
  }
  const uint64_t to_begin = to.offset + to_offset, from_begin = from.offset + from_offset;
  if (to.block == from.block && to_begin < from_begin + bytes && from_begin < to_begin + bytes) {
    std::vector<char> between(bytes);
    FP_RETURN_IF_ERROR(read(between.data(), from, from_offset, bytes));
    return write(to, to_offset, between.data(), bytes);
  }
  FP_ASSIGN_OR_RETURN(Slot * slot, this->slot(0, false));
  FP_RETURN_IF_ERROR(begin(*slot));
  const VkBufferCopy region = {from_begin, to_begin, bytes};
  context_.vk.vkCmdCopyBuffer(slot->commands, from.buffer(), to.buffer(), 1, &region);
  FP_RETURN_IF_ERROR(submit(*slot));
  return finish(*slot);
}

Status Transfers::zero(const Slice &slice) {
  FP_RETURN_IF_ERROR(context_.usable());
  if (char *target = slice.writable()) {
    std::memset(target, 0, slice.bytes);
    return Status();
  }
  FP_ASSIGN_OR_RETURN(Slot * slot, this->slot(0, false));
  FP_RETURN_IF_ERROR(begin(*slot));
  context_.vk.vkCmdFillBuffer(slot->commands, slice.buffer(), slice.offset, slice.bytes, 0);
  FP_RETURN_IF_ERROR(submit(*slot));
  return finish(*slot);
}

} // namespace freeport::vulkan
