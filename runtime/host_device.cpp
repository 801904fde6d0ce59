// A recording keeps every dispatch with room for its resolved operands, so that a replay evaluates expressions into
// that room and hands chunks of programs to the team, one run of dispatches between barriers at a time.
#include "runtime/host_device.h"

#include "runtime/machine.h"
#include "runtime/size.h"
#include "runtime/team.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <vector>

struct fp_memory {
  char *data;
  uint64_t bytes;
  bool imported; ///< only read, and not ours to free
};

struct fp_executable {
  std::unique_ptr<freeport::HostExecutable> kernels;
  size_t kernel_count;
};

struct fp_device {
  fp_device(const char *name, freeport::HostLoad load, int threads, bool timings)
      : name(name), load(load), timings(timings), team(threads) {}
  const char *name;
  freeport::HostLoad load;
  bool timings; ///< whether replays measure their chunks
  freeport::Team team;
};

namespace {

using Clock = std::chrono::steady_clock;

struct Dispatch {
  uint32_t kernel;
  fp_size grid[3];
  std::vector<fp_binding> bindings;
  std::vector<fp_size> scalars;
  // Filled by each replay.
  std::vector<void *> addresses;
  std::vector<uint64_t> readable, writable;
  std::vector<int64_t> values;
  freeport::HostDispatch resolved;
  int64_t programs;
  uint32_t chunks;
};

/// The dispatches first .. last-1, which may overlap.
struct Phase {
  size_t first, last;
};

} // namespace

struct fp_recording {
  const fp_executable *executable;
  std::vector<Dispatch> dispatches;
  std::vector<Phase> phases;
  std::vector<fp_timing> timings; ///< room for all chunks, or none; the last replay's first
  size_t timed = 0;               ///< chunks of the last replay
};

namespace freeport {

int32_t fill_error(const Status &status, fp_error *error) {
  if (error) {
    error->code = int32_t(status.code());
    size_t length = std::min(status.message().size(), sizeof error->message - 1);
    while (length < status.message().size() && length > 0 && (status.message()[length] & 0xC0) == 0x80)
      --length; // not within a character
    std::memcpy(error->message, status.message().data(), length);
    error->message[length] = 0;
  }
  return int32_t(status.code());
}

namespace {

/// A grid larger than this is a mistake, and keeps chunk arithmetic within 64 bits.
constexpr int64_t kMaximumPrograms = int64_t(1) << 40;
/// Chunks per thread: enough to even out unequal programs, few enough that claiming costs nothing.
constexpr int64_t kChunksPerThread = 8;

bool inside(const fp_memory &memory, uint64_t offset, uint64_t bytes) {
  return offset <= memory.bytes && bytes <= memory.bytes - offset;
}

Status outside(const char *what, const fp_memory &memory, uint64_t offset, uint64_t bytes) {
  return Status(Code::kOutOfRange, std::string(what) + ": expects a range inside " + std::to_string(memory.bytes) +
                                       " bytes of memory, got " + std::to_string(bytes) + " bytes at " +
                                       std::to_string(offset));
}

/// Whether the host may write this range.
Status check_target(const char *what, const fp_memory &memory, uint64_t offset, uint64_t bytes) {
  if (!inside(memory, offset, bytes))
    return outside(what, memory, offset, bytes);
  if (memory.imported)
    return Status(Code::kInvalidArgument, std::string(what) + ": expects allocated memory, got imported memory");
  return Status();
}

int32_t allocate(fp_device *, uint64_t bytes, fp_memory **memory, fp_error *error) {
  void *data = bytes > UINT64_MAX / 2 ? MAP_FAILED
                                      : ::mmap(nullptr, std::max<uint64_t>(bytes, 1), PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    return fill_error(Status(Code::kOutOfMemory, "allocate: " + std::to_string(bytes) +
                                                     " bytes are more than this machine has; use a shorter context"),
                      error);
  *memory = new fp_memory{static_cast<char *>(data), bytes, false};
  return 0;
}

int32_t import_host(fp_device *, const void *data, uint64_t bytes, fp_memory **memory, fp_error *) {
  // Kernels take untyped addresses; HostDispatch::writable says that this one is only read.
  *memory = new fp_memory{static_cast<char *>(const_cast<void *>(data)), bytes, true};
  return 0;
}

void release(fp_device *, fp_memory *memory) {
  if (memory && !memory->imported)
    ::munmap(memory->data, std::max<uint64_t>(memory->bytes, 1));
  delete memory;
}

void *map(fp_device *, fp_memory *memory) { return memory->data; }

int32_t write(fp_device *, fp_memory *to, uint64_t offset, const void *from, uint64_t bytes, fp_error *error) {
  if (Status status = check_target("write", *to, offset, bytes); !status.ok())
    return fill_error(status, error);
  if (bytes)
    std::memcpy(to->data + offset, from, bytes);
  return 0;
}

int32_t read(fp_device *, void *to, fp_memory *from, uint64_t offset, uint64_t bytes, fp_error *error) {
  if (!inside(*from, offset, bytes))
    return fill_error(outside("read", *from, offset, bytes), error);
  if (bytes)
    std::memcpy(to, from->data + offset, bytes);
  return 0;
}

int32_t copy(fp_device *, fp_memory *to, uint64_t to_offset, fp_memory *from, uint64_t from_offset, uint64_t bytes,
             fp_error *error) {
  if (!inside(*from, from_offset, bytes))
    return fill_error(outside("copy", *from, from_offset, bytes), error);
  if (Status status = check_target("copy", *to, to_offset, bytes); !status.ok())
    return fill_error(status, error);
  if (bytes)
    std::memmove(to->data + to_offset, from->data + from_offset, bytes);
  return 0;
}

void close(fp_device *device) { delete device; }

/// The processor's name as the kernel tells it, else the machine's architecture.
std::string processor_name() {
  std::string name = "processor";
  if (std::FILE *file = std::fopen("/proc/cpuinfo", "r")) {
    char line[512];
    while (std::fgets(line, sizeof line, file))
      if (const char *colon = std::strchr(line, ':'); colon && std::strncmp(line, "model name", 10) == 0) {
        name.assign(colon + 1 + std::strspn(colon + 1, " "));
        name.resize(name.find_last_not_of("\n ") + 1);
        break;
      }
    std::fclose(file);
  }
  return name;
}

void describe(fp_device *device, fp_device_description *description) {
  enumerate_host_device(nullptr, 0, description, nullptr);
  description->threads = device->team.threads();
}

int32_t load(fp_device *device, const void *content, uint64_t bytes, uint32_t version, const char *const *names,
             size_t count, fp_executable **executable, fp_error *error) {
  auto loaded = device->load({static_cast<const std::byte *>(content), size_t(bytes)}, version, {names, count});
  if (!loaded.ok())
    return fill_error(loaded.status(), error);
  *executable = new fp_executable{std::move(loaded).value(), count};
  return 0;
}

void unload(fp_device *, fp_executable *executable) { delete executable; }

int32_t record(fp_device *device, fp_executable *executable, const fp_command *commands, size_t count,
               fp_recording **recording, fp_error *error) {
  auto made = std::make_unique<fp_recording>();
  made->executable = executable;
  size_t first = 0;
  auto end_phase = [&] {
    if (first < made->dispatches.size())
      made->phases.push_back({first, made->dispatches.size()});
    first = made->dispatches.size();
  };
  for (size_t i = 0; i < count; ++i) {
    const fp_command &command = commands[i];
    if (command.kind == FP_COMMAND_BARRIER) {
      end_phase();
      continue;
    }
    if (command.kind != FP_COMMAND_DISPATCH || command.kernel >= executable->kernel_count)
      return fill_error(Status(Code::kInvalidArgument, "record: expects a barrier or a dispatch of a kernel below " +
                                                           std::to_string(executable->kernel_count) + ", got kernel " +
                                                           std::to_string(command.kernel)),
                        error);
    if (Status status = executable->kernels->check(command.kernel, command.binding_count, command.scalar_count);
        !status.ok())
      return fill_error(status, error);
    Dispatch dispatch{};
    dispatch.kernel = command.kernel;
    std::copy_n(command.grid, 3, dispatch.grid);
    dispatch.bindings.assign(command.bindings, command.bindings + command.binding_count);
    dispatch.scalars.assign(command.scalars, command.scalars + command.scalar_count);
    dispatch.addresses.resize(command.binding_count);
    dispatch.readable.resize(command.binding_count);
    dispatch.writable.resize(command.binding_count);
    dispatch.values.resize(command.scalar_count);
    made->dispatches.push_back(std::move(dispatch));
  }
  end_phase();
  if (device->timings)
    made->timings.resize(made->dispatches.size() * size_t(device->team.threads() * kChunksPerThread));
  *recording = made.release();
  return 0;
}

Status resolve(Dispatch &dispatch, std::span<const int64_t> symbols, int threads) {
  dispatch.programs = 1;
  for (int i = 0; i < 3; ++i) {
    FP_ASSIGN_OR_RETURN(dispatch.resolved.grid[i], evaluate_size(dispatch.grid[i], symbols));
    if (dispatch.resolved.grid[i] < 0 ||
        __builtin_mul_overflow(dispatch.programs, dispatch.resolved.grid[i], &dispatch.programs) ||
        dispatch.programs > kMaximumPrograms)
      return Status(Code::kOutOfRange, "replay: expects a grid of 0 to 2^40 programs, got " +
                                           std::to_string(dispatch.resolved.grid[i]) + " in dimension " +
                                           std::to_string(i));
  }
  for (size_t i = 0; i < dispatch.bindings.size(); ++i) {
    const fp_binding &binding = dispatch.bindings[i];
    FP_ASSIGN_OR_RETURN(const int64_t offset, evaluate_size(binding.offset, symbols));
    uint64_t start;
    if (offset < 0 || __builtin_add_overflow(binding.memory_offset, uint64_t(offset), &start) ||
        start > binding.memory->bytes)
      return outside("replay", *binding.memory, binding.memory_offset, uint64_t(offset));
    dispatch.addresses[i] = binding.memory->data + start;
    dispatch.readable[i] = binding.memory->bytes - start;
    dispatch.writable[i] = binding.memory->imported ? 0 : dispatch.readable[i];
  }
  for (size_t i = 0; i < dispatch.scalars.size(); ++i) {
    FP_ASSIGN_OR_RETURN(dispatch.values[i], evaluate_size(dispatch.scalars[i], symbols));
  }
  dispatch.resolved.bindings = dispatch.addresses.data();
  dispatch.resolved.readable = dispatch.readable.data();
  dispatch.resolved.writable = dispatch.writable.data();
  dispatch.resolved.scalars = dispatch.values.data();
  dispatch.chunks = uint32_t(std::min<int64_t>(dispatch.programs, threads == 1 ? 1 : threads * kChunksPerThread));
  return Status();
}

struct PhaseRun {
  const HostExecutable *kernels;
  std::span<const Dispatch> dispatches;
  uint32_t first;     ///< number of the first dispatch
  fp_timing *timings; ///< by chunk; null: not wanted
  Clock::time_point start;
};

void run_chunk(void *context, uint32_t number) {
  const auto &run = *static_cast<const PhaseRun *>(context);
  uint32_t at = 0, chunk = number;
  for (; chunk >= run.dispatches[at].chunks; ++at)
    chunk -= run.dispatches[at].chunks;
  const Dispatch &dispatch = run.dispatches[at];
  const int64_t first = dispatch.programs * chunk / dispatch.chunks;
  const int64_t last = dispatch.programs * (chunk + 1) / dispatch.chunks;
  if (!run.timings)
    return run.kernels->run(dispatch.kernel, dispatch.resolved, first, last);
  auto now = [&] { return uint64_t(std::chrono::nanoseconds(Clock::now() - run.start).count()); };
  fp_timing &timing = run.timings[number];
  timing = {run.first + at, Team::current_thread(), now(), 0};
  run.kernels->run(dispatch.kernel, dispatch.resolved, first, last);
  timing.end = now();
}

int32_t replay(fp_device *device, fp_recording *recording, const int64_t *symbols, size_t symbol_count,
               fp_error *error) {
  // Every dispatch is resolved before the first one runs: a bad size leaves memory as it was.
  for (Dispatch &dispatch : recording->dispatches)
    if (Status status = resolve(dispatch, {symbols, symbol_count}, device->team.threads()); !status.ok())
      return fill_error(status, error);
  recording->timed = 0;
  const Clock::time_point start = device->timings ? Clock::now() : Clock::time_point();
  for (const Phase &phase : recording->phases) {
    PhaseRun run{recording->executable->kernels.get(),
                 std::span(recording->dispatches).subspan(phase.first, phase.last - phase.first), uint32_t(phase.first),
                 device->timings ? recording->timings.data() + recording->timed : nullptr, start};
    uint32_t chunks = 0;
    for (const Dispatch &dispatch : run.dispatches)
      chunks += dispatch.chunks;
    device->team.run(chunks, run_chunk, &run);
    recording->timed += chunks;
  }
  return 0;
}

int32_t timings(fp_device *device, fp_recording *recording, fp_timing *timings, size_t capacity, size_t *count,
                fp_error *error) {
  if (!device->timings)
    return fill_error(
        Status(Code::kUnsupported, std::string(device->name) + ": expects a device that was opened with timings"),
        error);
  *count = recording->timed;
  std::copy_n(recording->timings.begin(), std::min(capacity, recording->timed), timings);
  return 0;
}

void erase(fp_device *, fp_recording *recording) { delete recording; }

} // namespace

int32_t open_host_device(const char *name, HostLoad load, const fp_device_options *options, fp_device **device,
                         fp_error *error) {
  constexpr int kMaximumThreads = 1024;
  int threads = options ? options->threads : 0;
  if (threads < 0 || threads > kMaximumThreads)
    return fill_error(Status(Code::kInvalidArgument,
                             std::string(name) + ": expects 1 to 1024 threads, got " + std::to_string(threads)),
                      error);
  if (options && options->selector && *options->selector)
    return fill_error(Status(Code::kInvalidArgument,
                             std::string(name) + ": expects no selector behind the name, got " + options->selector),
                      error);
  // More threads than processors only wait for each other, and oneTBB would say so on standard error.
  const int processors = std::clamp(int(std::thread::hardware_concurrency()), 1, kMaximumThreads);
  threads = std::min(threads == 0 ? physical_cores() : threads, processors);
  *device = new fp_device(name, load, threads, options && options->timings);
  return 0;
}

int32_t enumerate_host_device(const char *reason, uint32_t index, fp_device_description *description, fp_error *error) {
  if (index > 0)
    return fill_error(Status(Code::kNotFound, "expects device 0, got " + std::to_string(index)), error);
  *description = fp_device_description{};
  std::strncpy(description->name, processor_name().c_str(), sizeof description->name - 1);
  std::strncpy(description->reason, reason ? reason : "", sizeof description->reason - 1);
  description->memory_bytes = uint64_t(::sysconf(_SC_PHYS_PAGES)) * uint64_t(::sysconf(_SC_PAGESIZE));
  description->host_memory = 1;
  description->threads = physical_cores();
  return 0;
}

fp_device_api make_host_device_api(const char *name, HostEnumerate enumerate, HostRejects rejects, HostOpen open) {
  fp_device_api api{};
  api.size = sizeof api;
  api.abi_version = FP_DEVICE_ABI_VERSION;
  api.name = name;
  api.enumerate = enumerate;
  api.rejects = rejects;
  api.open = open;
  api.close = close;
  api.describe = describe;
  api.allocate = allocate;
  api.import_host = import_host;
  api.release = release;
  api.map = map;
  api.write = write;
  api.read = read;
  api.copy = copy;
  api.load = load;
  api.unload = unload;
  api.record = record;
  api.replay = replay;
  api.erase = erase;
  api.timings = timings;
  return api;
}

} // namespace freeport
