// The driver decides when the reactor gets a turn. The reactor never waits; who waits for it, and how the event loop
// learns that something came, is what the drivers differ in.
//
//   uv_poll      driver_uv_poll.cc  the poller's descriptor lies in libuv's own queue. The default on Linux.
//   waiter       driver_waiter.cc   a thread waits on the poller (core/waiter.h) and wakes libuv with uv_async. The
//                                   default on macOS, where kqueues do not nest.
//   waiter-tsfn  driver_waiter.cc   the same, waking with a thread-safe function of Node-API: needs no libuv
//   prepare      driver_prepare.cc  we wait, in uv_prepare, and libuv's descriptor lies in our poller. Linux, on request
#pragma once

#include <node_api.h>

#include <memory>

#include "core/reactor.h"
#include "node/uv_api.h"
#include "node/uv_handles.h"

namespace edgewire {

class Driver {
 public:
  // Called on the loop's thread: a turn, inside what the embedder needs around it, and then schedule().
  using RunTurn = void (*)(void* context, Look look);
  using Closed = void (*)(void* context);

  struct Setting {
    napi_env env;
    uv_loop_t* loop;  // nullptr where there is no libuv
    Reactor* reactor;
    RunTurn run_turn;
    void* context;
  };

  virtual ~Driver() = default;
  virtual int open(const Setting& setting) noexcept = 0;  // 0 or -errno
  // After every turn, and after anything between turns that may have changed when the next one is due.
  virtual void schedule() noexcept = 0;
  // Does edgewire keep the process alive? Not to begin with.
  virtual void set_ref(bool on) noexcept = 0;
  // No more turns; the poller is let go of and may be closed. Callable in the middle of a turn.
  virtual void stop() noexcept = 0;
  // After stop(). `closed` is called when the driver may be deleted. When that is at once (some runtimes close
  // synchronously), it is the last thing that close() does.
  virtual void close(Closed closed, void* context) noexcept = 0;
};

std::unique_ptr<Driver> make_uv_poll_driver(const UvApi& uv);
// `uv` nullptr: waiter-tsfn.
std::unique_ptr<Driver> make_waiter_driver(const UvApi* uv);
// Whether this libuv is one that the driver prepare knows: otherwise it is not to be made.
bool suits_prepare_driver(const UvApi& uv) noexcept;
std::unique_ptr<Driver> make_prepare_driver(const UvApi& uv);

}  // namespace edgewire
