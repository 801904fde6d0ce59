// The device `vulkan`: runtime/device.h over the classes of this folder.
#include "backends/vulkan/runtime/device.h"

#include "runtime/host_device.h"

#include <fmt/format.h>

#include <cstring>

using namespace freeport;
using namespace freeport::vulkan;

namespace {

Executable *executable_of(fp_executable *handle) { return reinterpret_cast<Executable *>(handle); }
Recording *recording_of(fp_recording *handle) { return reinterpret_cast<Recording *>(handle); }

/// Hands an object out as a handle of the C interface.
template <typename Handle, typename Object> void hand_out(Object *object, Handle **handle) {
  *handle = reinterpret_cast<Handle *>(object);
}

int32_t finish(const Status &status, fp_error *error) { return status.ok() ? 0 : fill_error(status, error); }

Result<std::vector<Capabilities>> all_devices() {
  FP_ASSIGN_OR_RETURN(const Instance *instance, Instance::get());
  std::vector<Capabilities> devices;
  for (VkPhysicalDevice device : instance->devices)
    devices.push_back(query_capabilities(*instance, device));
  return devices;
}

int32_t enumerate(uint32_t index, fp_device_description *description, fp_error *error) {
  auto devices = all_devices();
  const size_t count = devices.ok() ? devices->size() : 1;
  if (index >= count)
    return fill_error(Status(Code::kNotFound, fmt::format("vulkan: expects a device below {}, got {}", count, index)),
                      error);
  if (devices.ok()) {
    freeport::vulkan::describe(devices.value()[index], *description);
    return 0;
  }
  *description = fp_device_description{};
  std::strncpy(description->reason, devices.status().message().c_str(), sizeof description->reason - 1);
  return 0;
}

const char *rejects(fp_device *device, const char *target, const char *const *conditions, size_t count) {
  std::string &reason = device_of(device)->rejection;
  reason = rejection(device_of(device)->context->capabilities, target, {conditions, count});
  return reason.empty() ? nullptr : reason.c_str();
}

Result<Device *> open_selected(const fp_device_options *options) {
  FP_ASSIGN_OR_RETURN(const std::vector<Capabilities> devices, all_devices());
  const char *selector = options && options->selector ? options->selector : "";
  FP_ASSIGN_OR_RETURN(const Capabilities chosen, select_device(devices, selector));
  FP_ASSIGN_OR_RETURN(std::unique_ptr<Context> context, Context::create(chosen, options && options->timings));
  return new Device(std::move(context));
}

int32_t open(const fp_device_options *options, fp_device **device, fp_error *error) {
  auto opened = open_selected(options);
  if (!opened.ok())
    return fill_error(opened.status(), error);
  hand_out(opened.value(), device);
  return 0;
}

void close(fp_device *device) { delete device_of(device); }

void describe(fp_device *device, fp_device_description *description) {
  freeport::vulkan::describe(device_of(device)->context->capabilities, *description);
}

//===-- Memory ----------------------------------------------------------------------------------------------------===//

int32_t allocate(fp_device *device, uint64_t bytes, fp_memory **memory, fp_error *error) {
  // Small memories are the inputs and outputs of steps: the host writes them directly where it can.
  constexpr uint64_t kSmall = 64 << 10;
  const bool upload = bytes <= kSmall && !device_of(device)->context->capabilities.shares_host_memory();
  auto slice = device_of(device)->pool.allocate(bytes, upload ? Use::upload : Use::kernels);
  if (!slice.ok())
    return fill_error(slice.status(), error);
  if (Status status = device_of(device)->transfers.zero(*slice); !status.ok()) {
    device_of(device)->pool.release(slice.value());
    return fill_error(status, error);
  }
  hand_out(new Memory{slice.value(), bytes}, memory);
  return 0;
}

int32_t import_host(fp_device *device, const void *data, uint64_t bytes, fp_memory **memory, fp_error *error) {
  auto slice = device_of(device)->pool.import(data, bytes);
  if (!slice.ok())
    return fill_error(slice.status(), error);
  hand_out(new Memory{slice.value(), bytes}, memory);
  return 0;
}

void release(fp_device *device, fp_memory *memory) {
  if (memory)
    device_of(device)->pool.release(memory_of(memory)->slice);
  delete memory_of(memory);
}

void *map(fp_device *, fp_memory *memory) { return memory_of(memory)->slice.readable(); }

Status inside(const char *what, const Memory &memory, uint64_t offset, uint64_t bytes) {
  if (offset <= memory.bytes && bytes <= memory.bytes - offset)
    return Status();
  return Status(Code::kOutOfRange, fmt::format("{}: expects a range inside {} bytes of memory, got {} bytes at {}",
                                               what, memory.bytes, bytes, offset));
}

Status may_write(const char *what, const Memory &memory) {
  return memory.slice.block->imported
             ? Status(Code::kInvalidArgument, fmt::format("{}: expects memory that is not imported", what))
             : Status();
}

Status write_checked(fp_device *device, fp_memory *to, uint64_t offset, const void *from, uint64_t bytes) {
  FP_RETURN_IF_ERROR(inside("write", *memory_of(to), offset, bytes));
  FP_RETURN_IF_ERROR(may_write("write", *memory_of(to)));
  return device_of(device)->transfers.write(memory_of(to)->slice, offset, from, bytes);
}

Status copy_checked(fp_device *device, fp_memory *to, uint64_t to_offset, fp_memory *from, uint64_t from_offset,
                    uint64_t bytes) {
  FP_RETURN_IF_ERROR(inside("copy", *memory_of(from), from_offset, bytes));
  FP_RETURN_IF_ERROR(inside("copy", *memory_of(to), to_offset, bytes));
  FP_RETURN_IF_ERROR(may_write("copy", *memory_of(to)));
  return device_of(device)->transfers.copy(memory_of(to)->slice, to_offset, memory_of(from)->slice, from_offset, bytes);
}

int32_t write(fp_device *device, fp_memory *to, uint64_t offset, const void *from, uint64_t bytes, fp_error *error) {
  return finish(write_checked(device, to, offset, from, bytes), error);
}

int32_t read(fp_device *device, void *to, fp_memory *from, uint64_t offset, uint64_t bytes, fp_error *error) {
  Status status = inside("read", *memory_of(from), offset, bytes);
  return finish(status.ok() ? device_of(device)->transfers.read(to, memory_of(from)->slice, offset, bytes) : status,
                error);
}

int32_t copy(fp_device *device, fp_memory *to, uint64_t to_offset, fp_memory *from, uint64_t from_offset,
             uint64_t bytes, fp_error *error) {
  return finish(copy_checked(device, to, to_offset, from, from_offset, bytes), error);
}

//===-- Programs --------------------------------------------------------------------------------------------------===//

int32_t load(fp_device *device, const void *content, uint64_t bytes, uint32_t version, const char *const *names,
             size_t count, fp_executable **executable, fp_error *error) {
  auto loaded = Executable::load(*device_of(device)->context, device_of(device)->cache.handle(),
                                 {static_cast<const std::byte *>(content), size_t(bytes)}, version, {names, count});
  if (!loaded.ok())
    return fill_error(loaded.status(), error);
  device_of(device)->cache.save();
  hand_out(loaded.value().release(), executable);
  return 0;
}

void unload(fp_device *, fp_executable *executable) { delete executable_of(executable); }

int32_t record(fp_device *device, fp_executable *executable, const fp_command *commands, size_t count,
               fp_recording **recording, fp_error *error) {
  auto made = Recording::record(*device_of(device)->context, device_of(device)->pool, *executable_of(executable),
                                {commands, count});
  if (!made.ok())
    return fill_error(made.status(), error);
  hand_out(made.value().release(), recording);
  return 0;
}

int32_t replay(fp_device *, fp_recording *recording, const int64_t *symbols, size_t symbol_count, fp_error *error) {
  return finish(recording_of(recording)->replay({symbols, symbol_count}), error);
}

void erase(fp_device *, fp_recording *recording) { delete recording_of(recording); }

int32_t timings(fp_device *, fp_recording *recording, fp_timing *timings, size_t capacity, size_t *count,
                fp_error *error) {
  *count = recording_of(recording)->dispatches();
  return finish(recording_of(recording)->timings({timings, capacity}), error);
}

} // namespace

extern "C" const fp_device_api *freeport_vulkan_device(void) {
  static const fp_device_api api = [] {
    fp_device_api made{};
    made.size = sizeof made;
    made.abi_version = FP_DEVICE_ABI_VERSION;
    made.name = "vulkan";
    made.enumerate = enumerate;
    made.rejects = rejects;
    made.open = open;
    made.close = close;
    made.describe = describe;
    made.allocate = allocate;
    made.import_host = import_host;
    made.release = release;
    made.map = map;
    made.write = write;
    made.read = read;
    made.copy = copy;
    made.load = load;
    made.unload = unload;
    made.record = record;
    made.replay = replay;
    made.erase = erase;
    made.timings = timings;
    return made;
  }();
  return &api;
}
