// The driver decides when the reactor gets a turn. This one (driver_uv_poll.cc) nests the poller's descriptor in libuv's.
//
//   uv_poll     the poller has events                                   -> a turn
//   uv_prepare  JavaScript left commands outside a turn                 -> a turn, before libuv blocks
//   uv_idle     the last turn's budgets left work over                  -> a turn in the next loop iteration
//   uv_timer    a deadline, a backoff or the pool's upkeep is due       -> a turn
//
// Only the poll handle ever keeps the process alive, and only while JavaScript holds something ref'd.
#pragma once

#include <uv.h>

#include <limits>

#include "core/reactor.h"

namespace edgewire {

class Driver {
 public:
  // Called on the loop's thread; runs Reactor::turn(poll) inside what the embedder needs around it.
  using RunTurn = void (*)(void* context, bool poll);
  using Closed = void (*)(void* context);

  int open(uv_loop_t* loop, Reactor* reactor, RunTurn run_turn, void* context) noexcept;  // 0 or -errno
  // After every turn, and after anything that may have changed when the next one is due.
  void schedule() noexcept;
  void set_ref(bool on) noexcept;
  // Stops at once; `closed` is called when libuv has let go of every handle, and may delete the driver.
  // When it calls back at once (some runtimes do), that is the last thing that close() does.
  void close(Closed closed, void* context) noexcept;

 private:
  static constexpr int kHandles = 4;

  void run(bool poll) noexcept { run_turn_(context_, poll); }
  void set_idle(bool on) noexcept;
  static void on_closed(uv_handle_t* handle);

  uv_poll_t poll_{};
  uv_prepare_t prepare_{};
  uv_idle_t idle_{};
  uv_timer_t timer_{};
  Reactor* reactor_ = nullptr;
  RunTurn run_turn_ = nullptr;
  void* context_ = nullptr;
  Closed closed_ = nullptr;
  void* closed_context_ = nullptr;
  double timer_ms_ = std::numeric_limits<double>::infinity();  // what the timer stands at
  int handles_open_ = 0;
  bool idle_on_ = false;
};

}  // namespace edgewire
