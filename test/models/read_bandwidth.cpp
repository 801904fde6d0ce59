// Measures how fast this machine's memory can be read: the best of 1, 2, 4 and 8 threads that stream over 1 GiB.
// Decoding one token reads every weight once, so this number is the roof that decoding speed is compared with.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr size_t kBytes = size_t{1} << 30;
constexpr int kRounds = 3;
constexpr size_t kStreams = 4;

using Lanes = uint64_t __attribute__((vector_size(32)));

/// Sums `count` vectors as four streams read side by side: one stream alone leaves memory channels idle.
uint64_t read_range(const Lanes *data, size_t count) {
  const size_t quarter = count / kStreams;
  Lanes sums[kStreams] = {};
  for (size_t i = 0; i < quarter; i += 2)
    for (size_t stream = 0; stream < kStreams; ++stream) {
      const Lanes *at = data + stream * quarter + i;
      sums[stream] += at[0] + at[1];
    }
  const Lanes sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return sum[0] + sum[1] + sum[2] + sum[3];
}

double seconds_for(const Lanes *data, size_t count, size_t threads, uint64_t &checksum) {
  std::vector<uint64_t> sums(threads);
  const size_t share = count / threads;
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> team;
  for (size_t i = 0; i < threads; ++i)
    team.emplace_back([&, i] { sums[i] = read_range(data + i * share, share); });
  for (std::thread &thread : team)
    thread.join();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  for (uint64_t sum : sums)
    checksum += sum;
  return elapsed.count();
}

} // namespace

int main() {
  const size_t count = kBytes / sizeof(Lanes);
  Lanes *data = static_cast<Lanes *>(std::aligned_alloc(64, kBytes));
  if (data == nullptr) {
    std::fprintf(stderr, "freeport-read-bandwidth: expects 1 GiB of free memory\n");
    return 1;
  }
  for (size_t i = 0; i < count; ++i)
    data[i] = Lanes{i, i + 1, i + 2, i + 3};
  uint64_t checksum = 0;
  double best = 0;
  for (size_t threads : {1, 2, 4, 8}) {
    double fastest = 1e30;
    for (int round = 0; round < kRounds; ++round)
      fastest = std::min(fastest, seconds_for(data, count, threads, checksum));
    const double rate = double(kBytes) / fastest / 1e9;
    std::printf("threads %zu GB/s %.2f\n", threads, rate);
    best = std::max(best, rate);
  }
  // The checksum is printed so that no compiler may drop the reads.
  std::printf("best GB/s %.2f (checksum %llx)\n", best, static_cast<unsigned long long>(checksum));
  std::free(data);
  return 0;
}
