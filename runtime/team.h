// A small team of oneTBB's threads that runs chunks of work together with its caller and spins for a moment between
// calls. Helpers join by claiming a chunk, so a caller never waits for one that did not come.
#pragma once

#include <cstdint>
#include <memory>

namespace freeport {

class Team {
public:
  /// Does chunk `chunk` of the work behind `context`. Called by any thread of the team.
  using Body = void (*)(void *context, uint32_t chunk);

  /// A team of `threads` (at least 1) including the caller; oneTBB may lend fewer.
  explicit Team(int threads);
  ~Team();
  Team(const Team &) = delete;
  Team &operator=(const Team &) = delete;

  int threads() const { return threads_; }
  /// Which of the team the calling thread is inside a Body: 0 is the caller of `run`.
  static uint32_t current_thread();

  /// Runs chunks 0 .. chunks-1, each once, and returns when all are done. One caller at a time.
  void run(uint32_t chunks, Body body, void *context);

private:
  struct Shared;
  int threads_;
  std::shared_ptr<Shared> shared_; ///< also held by helpers, which may outlive the team by a moment
};

} // namespace freeport
