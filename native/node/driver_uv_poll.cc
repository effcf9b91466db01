// The driver uv_poll: nested polling, which epoll(7) defines and libuv tests.
//
//   uv_poll     the poller has events                                   -> a turn
//   uv_prepare  JavaScript left commands outside a turn                 -> a turn, before libuv blocks
//   uv_idle     the last turn's budgets left work over                  -> a turn in the next loop iteration
//   uv_timer    a deadline, a backoff or the pool's upkeep is due       -> a turn
//
// Only the poll handle ever keeps the process alive, and only while JavaScript holds something ref'd.
#include <cmath>
#include <limits>

#include "node/driver.h"

namespace edgewire {
namespace {

class UvPollDriver final : public Driver {
 public:
  explicit UvPollDriver(const UvApi& uv) : uv_(uv), handles_(uv) {}
  int open(const Setting& setting) noexcept override;
  void schedule() noexcept override;
  void set_ref(bool on) noexcept override;
  void stop() noexcept override;
  void close(Closed closed, void* context) noexcept override { handles_.close(closed, context); }

 private:
  static UvPollDriver* of(void* data) noexcept { return static_cast<UvPollDriver*>(data); }
  void run(Look look) noexcept { setting_.run_turn(setting_.context, look); }
  void set_idle(bool on) noexcept;

  const UvApi& uv_;
  UvHandles handles_;
  Setting setting_{};
  uv_poll_t poll_{};
  uv_prepare_t prepare_{};
  uv_idle_t idle_{};
  uv_timer_t timer_{};
  double timer_ms_ = std::numeric_limits<double>::infinity();  // what the timer stands at
  bool running_ = false;
  bool idle_on_ = false;
};

int UvPollDriver::open(const Setting& setting) noexcept {
  setting_ = setting;
  int error = uv_.poll_init(setting.loop, &poll_, setting.reactor->poll_fd());
  if (error < 0) return error;
  uv_.prepare_init(setting.loop, &prepare_);
  uv_.idle_init(setting.loop, &idle_);
  uv_.timer_init(setting.loop, &timer_);
  handles_.add(&poll_, this);
  handles_.add(&prepare_, this);
  handles_.add(&idle_, this);
  handles_.add(&timer_, this);
  running_ = true;
  error =
      uv_.poll_start(&poll_, UV_READABLE, [](uv_poll_t* handle, int, int) { of(handle->data)->run(Look::kAlways); });
  uv_.prepare_start(&prepare_, [](uv_prepare_t* handle) {
    UvPollDriver* driver = of(handle->data);
    if (driver->setting_.reactor->has_commands()) driver->run(Look::kLater);
  });
  return error;
}

void UvPollDriver::set_idle(bool on) noexcept {
  if (on == idle_on_) return;
  idle_on_ = on;
  if (on) {
    uv_.idle_start(&idle_, [](uv_idle_t* handle) { of(handle->data)->run(Look::kAlways); });
  } else {
    uv_.idle_stop(&idle_);
  }
}

void UvPollDriver::schedule() noexcept {
  if (!running_) return;
  set_idle(setting_.reactor->wants_turn());
  double next_ms = setting_.reactor->next_turn_ms();
  if (next_ms == timer_ms_) return;
  timer_ms_ = next_ms;
  if (std::isinf(next_ms)) {
    uv_.timer_stop(&timer_);
    return;
  }
  // libuv's clock is the same CLOCK_MONOTONIC in whole milliseconds, as of the start of this loop iteration.
  double delay_ms = std::ceil(next_ms - static_cast<double>(uv_.now(setting_.loop)));
  uint64_t timeout = delay_ms > 0 ? static_cast<uint64_t>(delay_ms) : 0;
  uv_.timer_start(
      &timer_,
      [](uv_timer_t* handle) {
        UvPollDriver* driver = of(handle->data);
        driver->timer_ms_ = std::numeric_limits<double>::infinity();
        driver->run(Look::kAlways);
      },
      timeout, 0);
}

void UvPollDriver::set_ref(bool on) noexcept {
  if (!running_) return;
  auto* handle = reinterpret_cast<uv_handle_t*>(&poll_);
  on ? uv_.ref(handle) : uv_.unref(handle);
}

void UvPollDriver::stop() noexcept {
  if (!running_) return;
  running_ = false;
  // libuv takes the descriptor out of its queue while it is still the poller's.
  uv_.poll_stop(&poll_);
  uv_.prepare_stop(&prepare_);
  uv_.timer_stop(&timer_);
  set_idle(false);
}

}  // namespace

std::unique_ptr<Driver> make_uv_poll_driver(const UvApi& uv) { return std::make_unique<UvPollDriver>(uv); }

}  // namespace edgewire
