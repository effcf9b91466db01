// The driver prepare: nested polling the other way round. libuv's descriptor lies in our poller; in uv_prepare, just
// before libuv would wait, we wait in its place, for both, and take turns as long as libuv has nothing to do.
//
//   uv_prepare   wait: our events, libuv's descriptor, its next timer, our next deadline, the alarm
//                  ours                              -> a turn, and wait again
//                  libuv's                           -> let libuv go on
//                  the alarm, kSettleMs after a turn -> let libuv go round once
//   uv_idle      started whenever we leave           -> libuv's own poll, which does not see our poller, never blocks
//
// It saves what uv_poll costs: a wake through two queues, and libuv's epoll_wait before ours.
//
// Why nothing is lost or put off:
//   in libuv             is told to us by
//   a descriptor         its queue, which is readable then: sockets, pipes, signals and child processes, uv_async (and
//                        with it workers, thread-safe functions, the thread pool) and the completions of io_uring
//   not in it yet        uv_backend_timeout, which is 0 while watchers wait to be registered; uv__io_poll does that
//                        first of all, and leaves no change unsubmitted where it makes them through io_uring
//   a timer              uv_backend_timeout. It counts from the loop's own time, which we bring up to date after each wait,
//                        so that timers started in a turn count from then. However long the turn has taken, the wait
//                        behind it is short, and libuv then looks at the clock itself
//   anything at once     uv_backend_timeout, which is 0 for idle handles (an immediate is one), pending and closing ones,
//                        after uv_stop, and when nothing alive is left
//   what only an         prepare and check handles of other addons, immediates that are unref'd: they wait for nothing
//   iteration serves     in particular. So the poller's alarm is set, and it ends our waiting; we wait without it only
//                        when it has ended a waiting in which nothing came, and libuv has had nothing to do in the
//                        iteration that followed. An alarm that stands is left alone, however many turns there are: setting
//                        it is a system call
// Neither side starves the other: libuv's queue is level-triggered in ours, so every look tells of it and ends our turns;
// kTurnsPerIteration ends them as well; and each iteration looks at our poller, however busy libuv is.
//
// All of this is public in libuv, but not promised: suits_prepare_driver() asks for a version whose source says so.
#include "node/driver_prepare.h"

#include <algorithm>
#include <cstdint>

#include "core/sys.h"
#include "node/driver.h"

namespace edgewire {
namespace {

// An iteration of libuv costs about as much as a turn: at 64 to 1 it no longer shows.
constexpr int kTurnsPerIteration = 64;
// How long what only an iteration serves may wait for one. Busy connections have many turns in that time.
constexpr int kSettleMs = 2;

static_assert(UV_VERSION_MAJOR == kUvMajor);

// The shorter of two limits, of which -1 is none.
int shorter_ms(int a_ms, int b_ms) noexcept {
  return static_cast<int>(std::min(static_cast<unsigned>(a_ms), static_cast<unsigned>(b_ms)));
}

class PrepareDriver final : public Driver {
 public:
  explicit PrepareDriver(const UvApi& uv) : uv_(uv), handles_(uv) {}
  int open(const Setting& setting) noexcept override;
  // Nothing to prepare for: every iteration asks the reactor anew.
  void schedule() noexcept override {}
  void set_ref(bool on) noexcept override;
  void stop() noexcept override;
  void close(Closed closed, void* context) noexcept override { handles_.close(closed, context); }

 private:
  // What there is to compare, to know whether libuv has called anything: its own count of events, and its clock, without
  // which no timer comes due.
  struct Activity {
    uint64_t events;
    uint64_t time_ms;
    bool operator==(const Activity&) const = default;
  };

  void before_poll() noexcept;
  void take_turns() noexcept;
  bool turn_is_due(int events) const noexcept;
  int limit_ms() const noexcept;
  void owe_iteration() noexcept;
  bool take_alarm() noexcept;
  bool libuv_is_due() const noexcept;
  Activity activity() const noexcept;
  void set_idle(bool on) noexcept;

  const UvApi& uv_;
  UvHandles handles_;
  Setting setting_{};
  uv_prepare_t prepare_{};
  uv_idle_t idle_{};
  Activity left_at_{};         // when we last let libuv go on
  bool left_quietly_ = false;  // and neither we nor libuv had anything to do
  bool alarm_set_ = false;
  bool running_ = false;
  bool waiting_ = false;
};

int PrepareDriver::open(const Setting& setting) noexcept {
  setting_ = setting;
  int error = setting.reactor->poller().add_other_queue(uv_.backend_fd(setting.loop));
  if (error < 0) return error;
  alarm_set_ = true;
  error = setting.reactor->poller().set_alarm(kSettleMs);
  if (error < 0) return error;
  uv_.prepare_init(setting.loop, &prepare_);
  uv_.idle_init(setting.loop, &idle_);
  handles_.add(&prepare_, this);
  handles_.add(&idle_, this);
  running_ = true;
  uv_.prepare_start(&prepare_, [](uv_prepare_t* handle) { static_cast<PrepareDriver*>(handle->data)->before_poll(); });
  set_idle(true);
  return 0;
}

void PrepareDriver::set_ref(bool on) noexcept {
  if (!running_) return;
  auto* handle = reinterpret_cast<uv_handle_t*>(&prepare_);
  on ? uv_.ref(handle) : uv_.unref(handle);
}

void PrepareDriver::stop() noexcept {
  if (!running_) return;
  running_ = false;
  // Before the loop closes it, or another descriptor gets its number.
  setting_.reactor->poller().remove(uv_.backend_fd(setting_.loop));
  uv_.prepare_stop(&prepare_);
  set_idle(false);
}

void PrepareDriver::set_idle(bool on) noexcept {
  if (on) {
    uv_.idle_start(&idle_, [](uv_idle_t*) {});
  } else {
    uv_.idle_stop(&idle_);
  }
}

void PrepareDriver::before_poll() noexcept {
  // A handler runs the loop inside our turn. That turn goes on when it returns; until then libuv waits for itself.
  if (waiting_) return;
  waiting_ = true;
  set_idle(false);
  take_turns();
  waiting_ = false;
  if (running_) set_idle(true);
}

void PrepareDriver::take_turns() noexcept {
  if (!left_quietly_ || activity() != left_at_) owe_iteration();
  bool quiet = true;
  bool goes_on = true;
  for (int turns = 0; goes_on && turns < kTurnsPerIteration; turns++) {
    const int events = setting_.reactor->wait(limit_ms());
    uv_.update_time(setting_.loop);
    goes_on = turn_is_due(events);
    if (goes_on) {
      const double dispatches = setting_.reactor->dispatches();
      setting_.run_turn(setting_.context, Look::kOffered);
      if (!running_) return;
      if (setting_.reactor->dispatches() != dispatches) {
        quiet = false;
        owe_iteration();
      }
    }
    if (take_alarm()) goes_on = false;
    if (libuv_is_due()) goes_on = quiet = false;
  }
  left_quietly_ = quiet && !goes_on;
  left_at_ = activity();
}

// Something has run, or may have: it may have left what only an iteration serves.
void PrepareDriver::owe_iteration() noexcept {
  if (alarm_set_) return;
  // Cannot fail once it has worked, and open() has tried it.
  alarm_set_ = setting_.reactor->poller().set_alarm(kSettleMs) == 0;
}

bool PrepareDriver::turn_is_due(int events) const noexcept {
  const Reactor& reactor = *setting_.reactor;
  return events > 0 || reactor.wants_turn() || reactor.next_turn_ms() <= monotonic_ms();
}

int PrepareDriver::limit_ms() const noexcept {
  const Reactor& reactor = *setting_.reactor;
  if (reactor.wants_turn()) return 0;
  return shorter_ms(uv_.backend_timeout(setting_.loop), timeout_ms(reactor.next_turn_ms()));
}

bool PrepareDriver::take_alarm() noexcept {
  if (!setting_.reactor->poller().take_alarm()) return false;
  alarm_set_ = false;
  return true;
}

bool PrepareDriver::libuv_is_due() const noexcept {
  return setting_.reactor->poller().other_queue_ready() || uv_.backend_timeout(setting_.loop) == 0;
}

PrepareDriver::Activity PrepareDriver::activity() const noexcept {
  uv_metrics_t metrics{};
  uv_.metrics_info(setting_.loop, &metrics);
  return {metrics.events, uv_.now(setting_.loop)};
}

}  // namespace

bool suits_prepare_driver(const UvApi& uv) noexcept { return is_known_uv(uv.version()); }

std::unique_ptr<Driver> make_prepare_driver(const UvApi& uv) { return std::make_unique<PrepareDriver>(uv); }

}  // namespace edgewire
