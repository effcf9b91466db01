#include <cmath>

#include "node/driver.h"

namespace edgewire {

int Driver::open(uv_loop_t* loop, Reactor* reactor, RunTurn run_turn, void* context) noexcept {
  reactor_ = reactor;
  run_turn_ = run_turn;
  context_ = context;
  int error = uv_poll_init(loop, &poll_, reactor->poll_fd());
  if (error < 0) return error;
  uv_prepare_init(loop, &prepare_);
  uv_idle_init(loop, &idle_);
  uv_timer_init(loop, &timer_);
  handles_open_ = kHandles;
  poll_.data = prepare_.data = idle_.data = timer_.data = this;
  error = uv_poll_start(&poll_, UV_READABLE,
                        [](uv_poll_t* handle, int, int) { static_cast<Driver*>(handle->data)->run(true); });
  uv_prepare_start(&prepare_, [](uv_prepare_t* handle) {
    auto* driver = static_cast<Driver*>(handle->data);
    if (driver->reactor_->has_commands()) driver->run(false);
  });
  uv_handle_t* handles[kHandles] = {reinterpret_cast<uv_handle_t*>(&poll_), reinterpret_cast<uv_handle_t*>(&prepare_),
                                    reinterpret_cast<uv_handle_t*>(&idle_), reinterpret_cast<uv_handle_t*>(&timer_)};
  for (uv_handle_t* handle : handles) uv_unref(handle);
  return error;
}

void Driver::set_idle(bool on) noexcept {
  if (on == idle_on_) return;
  idle_on_ = on;
  if (on) {
    uv_idle_start(&idle_, [](uv_idle_t* handle) { static_cast<Driver*>(handle->data)->run(true); });
  } else {
    uv_idle_stop(&idle_);
  }
}

void Driver::schedule() noexcept {
  if (handles_open_ == 0 || closed_ != nullptr) return;
  set_idle(reactor_->wants_turn());
  double next_ms = reactor_->next_turn_ms();
  if (next_ms == timer_ms_) return;
  timer_ms_ = next_ms;
  if (std::isinf(next_ms)) {
    uv_timer_stop(&timer_);
    return;
  }
  // libuv's clock is the same CLOCK_MONOTONIC in whole milliseconds, as of the start of this loop iteration.
  double delay_ms = std::ceil(next_ms - static_cast<double>(uv_now(timer_.loop)));
  uint64_t timeout = delay_ms > 0 ? static_cast<uint64_t>(delay_ms) : 0;
  uv_timer_start(
      &timer_,
      [](uv_timer_t* handle) {
        auto* driver = static_cast<Driver*>(handle->data);
        driver->timer_ms_ = std::numeric_limits<double>::infinity();
        driver->run(true);
      },
      timeout, 0);
}

void Driver::set_ref(bool on) noexcept {
  if (handles_open_ == 0 || closed_ != nullptr) return;
  auto* handle = reinterpret_cast<uv_handle_t*>(&poll_);
  on ? uv_ref(handle) : uv_unref(handle);
}

void Driver::on_closed(uv_handle_t* handle) {
  auto* driver = static_cast<Driver*>(handle->data);
  if (--driver->handles_open_ == 0) driver->closed_(driver->closed_context_);
}

void Driver::close(Closed closed, void* context) noexcept {
  closed_ = closed;
  closed_context_ = context;
  if (handles_open_ == 0) {
    closed(context);
    return;
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&prepare_), on_closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&idle_), on_closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&timer_), on_closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), on_closed);
}

}  // namespace edgewire
