// The whole protocol is one 64-bit ticket: the call's number above, chunks not yet claimed below. A claim is a
// compare-and-swap on it, so a late helper can never claim a chunk of a call that has ended.
#include "runtime/team.h"

#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

namespace freeport {
namespace {

thread_local uint32_t current = 0;

} // namespace

struct Team::Shared {
  explicit Shared(int threads) : arena(threads, 1) {}

  alignas(64) std::atomic<uint64_t> ticket{0};
  alignas(64) std::atomic<uint32_t> finished{0};
  std::atomic<int> helpers{0}; ///< enqueued or running
  std::atomic<bool> stopped{false};
  // Written before the ticket is published, read after a claim: a call cannot end while a claimed chunk is unfinished.
  uint32_t chunks = 0;
  Body body = nullptr;
  void *context = nullptr;
  tbb::task_arena arena;

  /// Claims and runs chunks until none is left; whether there was one.
  bool work() {
    bool any = false;
    uint64_t seen = ticket.load(std::memory_order_acquire);
    while (uint32_t(seen) != 0) {
      if (!ticket.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel, std::memory_order_acquire))
        continue;
      body(context, chunks - uint32_t(seen));
      finished.fetch_add(1, std::memory_order_release);
      any = true;
      seen = ticket.load(std::memory_order_acquire);
    }
    return any;
  }

  /// A helper's life: works, and leaves after 2 ms without work, when other programs should have the core.
  void help() {
    using Clock = std::chrono::steady_clock;
    current = uint32_t(tbb::this_task_arena::current_thread_index()); // the caller's slot, 0, is kept free
    Clock::time_point last = Clock::now();
    for (uint32_t turn = 1; !stopped.load(std::memory_order_relaxed); ++turn) {
      if (work())
        last = Clock::now();
      else if (turn % 64 == 0) {
        if (Clock::now() - last > std::chrono::milliseconds(2))
          break;
        std::this_thread::yield();
      }
    }
    current = 0;
    helpers.fetch_sub(1, std::memory_order_acq_rel);
  }
};

Team::Team(int threads) : threads_(std::max(threads, 1)), shared_(std::make_shared<Shared>(threads_)) {}

uint32_t Team::current_thread() { return current; }

Team::~Team() { shared_->stopped.store(true, std::memory_order_relaxed); }

void Team::run(uint32_t chunks, Body body, void *context) {
  if (threads_ == 1 || chunks <= 1) {
    for (uint32_t chunk = 0; chunk < chunks; ++chunk)
      body(context, chunk);
    return;
  }
  Shared &shared = *shared_;
  shared.chunks = chunks;
  shared.body = body;
  shared.context = context;
  shared.finished.store(0, std::memory_order_relaxed);
  const uint64_t call = (shared.ticket.load(std::memory_order_relaxed) >> 32) + 1;
  shared.ticket.store(call << 32 | chunks, std::memory_order_release);
  while (shared.helpers.load(std::memory_order_acquire) < threads_ - 1) {
    shared.helpers.fetch_add(1, std::memory_order_acq_rel);
    shared.arena.enqueue([keep = shared_] { keep->help(); });
  }
  shared.work();
  for (uint32_t turn = 1; shared.finished.load(std::memory_order_acquire) != chunks; ++turn)
    if (turn % 64 == 0)
      std::this_thread::yield();
}

} // namespace freeport
