// Plain loops that the compiler vectorises; nothing here computes for a model.
#include "runtime/machine.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <memory>
#include <new>
#include <sched.h>
#include <set>
#include <thread>
#include <utility>
#include <vector>

// Compiled a second time for processors with wider vectors, and chosen when the program starts.
#if defined(__x86_64__)
#define FREEPORT_WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FREEPORT_WIDE
#endif

namespace freeport {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kWords = (size_t(1) << 30) / sizeof(uint64_t);
constexpr int kRounds = 3;
constexpr size_t kStreams = 4;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// Sums `words` words as four streams read side by side: one stream alone leaves memory channels idle.
FREEPORT_WIDE uint64_t read_words(const uint64_t *data, size_t words) {
  const size_t part = words / kStreams;
  const uint64_t *a = data, *b = data + part, *c = data + 2 * part, *d = data + 3 * part;
  uint64_t sum = 0;
  for (size_t at = 0; at < part; ++at)
    sum += (a[at] ^ b[at]) + (c[at] ^ d[at]);
  return sum;
}

/// `chains` independent sums, each of `rounds` fused multiply-adds.
template <size_t chains> [[gnu::always_inline]] inline float multiply_add(float factor, float addend, size_t rounds) {
#pragma clang fp contract(fast)
  std::array<float, chains> sums{};
  for (size_t round = 0; round < rounds; ++round)
    for (size_t i = 0; i < chains; ++i)
      sums[i] = sums[i] * factor + addend;
  float sum = 0;
  for (float value : sums)
    sum += value;
  return sum;
}

// Two units that take four cycles need eight vectors in flight, which have 4, 8 or 16 lanes; one register file has too
// few for the others' count.
FREEPORT_WIDE float multiply_add_32(size_t rounds) { return multiply_add<32>(0.999f, 0.001f, rounds); }
FREEPORT_WIDE float multiply_add_64(size_t rounds) { return multiply_add<64>(0.999f, 0.001f, rounds); }
FREEPORT_WIDE float multiply_add_128(size_t rounds) { return multiply_add<128>(0.999f, 0.001f, rounds); }

volatile uint64_t read_result; // so that no compiler drops the work
volatile float multiply_result;

} // namespace

Result<double> measure_read_bandwidth() {
  const std::unique_ptr<uint64_t[]> data(new (std::nothrow) uint64_t[kWords]);
  if (!data)
    return Status(Code::kOutOfMemory, "measuring memory: expects 1 GiB that is free, got less");
  for (size_t i = 0; i < kWords; ++i)
    data[i] = i;
  double best = 0;
  for (size_t threads : {1, 2, 4, 8})
    for (int round = 0; round < kRounds; ++round) {
      const auto start = Clock::now();
      std::vector<std::thread> readers;
      const size_t share = kWords / threads;
      for (size_t i = 0; i < threads; ++i)
        readers.emplace_back([&, i] { read_result = read_words(&data[i * share], share); });
      for (std::thread &reader : readers)
        reader.join();
      best = std::max(best, double(kWords * sizeof(uint64_t)) / seconds_since(start) / 1e9);
    }
  return best;
}

int physical_cores(const std::string &folder) {
  cpu_set_t usable;
  CPU_ZERO(&usable);
  if (::sched_getaffinity(0, sizeof usable, &usable) != 0)
    return std::max(1, int(std::thread::hardware_concurrency()));
  std::set<std::string> cores;
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (!CPU_ISSET(processor, &usable))
      continue;
    std::string siblings = std::to_string(processor); // alone on its core where the kernel does not tell
    std::ifstream(folder + "/cpu" + siblings + "/topology/thread_siblings_list") >> siblings;
    cores.insert(siblings);
  }
  return std::max(1, int(cores.size()));
}

double measure_multiply_add_peak() {
  constexpr size_t kSums = 128'000'000; // of all chains
  constexpr std::pair<size_t, float (*)(size_t)> kLoops[] = {
      {32, multiply_add_32}, {64, multiply_add_64}, {128, multiply_add_128}};
  double best = 0;
  for (int round = 0; round < 2 * kRounds; ++round)
    for (const auto &[chains, loop] : kLoops) {
      const auto start = Clock::now();
      multiply_result = loop(kSums / chains);
      best = std::max(best, double(kSums) / seconds_since(start) / 1e9);
    }
  return best;
}

} // namespace freeport
