// Waits for the poller on a thread of its own, for event loops whose queue cannot hold the poller's descriptor: a kqueue
// inside another kqueue is never or always readable on macOS, and some runtimes have no libuv at all.
//
//   the waiter's thread                          the loop's thread
//   -------------------                          -----------------
//   parked  <------------------------------------ start()
//   Poller::wait(until_ms)  <-------------------- resume(until_ms)        the reactor has nothing left to do
//      | events, or the time is up
//   parked; wake() -----------------------------> take(), then a turn     the poller is the loop's own meanwhile
//
// One wake is outstanding at most: a parked waiter does not wait, so it has nothing to wake for. The two threads never
// poll at the same time: an edge that one of them takes would be lost on the other.
#pragma once

#include <pthread.h>

#include <cstdint>

#include "core/poller.h"

namespace edgewire {

class Waiter {
 public:
  // Called on the waiter's thread, each time that it has parked itself with a batch.
  using Wake = void (*)(void* context) noexcept;

  Waiter() = default;
  ~Waiter() { stop(); }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  // Starts the thread, parked, with an empty batch. 0 or -errno. `poller` must stay open until stop().
  int start(Poller& poller, Wake wake, void* context) noexcept;
  // Ends the thread and waits for it: a wake() that has begun returns first. Callable at any time, also twice.
  void stop() noexcept;

  // What the thread has found, once, if it is parked: the poller is the caller's then, until resume(), and the events are
  // valid as long. There may be none: the time was up, or they have been taken. nullptr while it waits.
  const PollEvent* take(int* count) noexcept;
  // Waits on, until events come or it is `until_ms` (the native clock; Infinity: no limit). While it waits already, the
  // limit can only be brought forward. False when it has parked with events meanwhile: take() them first.
  bool resume(double until_ms) noexcept;

 private:
  enum class State : uint8_t { kStopped, kParked, kWaiting };

  static void* run_thread(void* self) noexcept;
  void run() noexcept;

  Poller* poller_ = nullptr;
  Wake wake_ = nullptr;
  void* context_ = nullptr;
  pthread_t thread_{};
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;
  State state_ = State::kStopped;  // this and what follows: under mutex_
  bool stopping_ = false;
  double until_ms_ = 0;
  int count_ = 0;
  PollEvent events_[Poller::kEventsPerWait];  // the thread's while it waits, the loop's while it is parked
};

}  // namespace edgewire
