// The drivers waiter and waiter-tsfn: a thread waits on the poller, and wakes the loop. Turns run on the loop's thread.
//
//   wake        the thread has events, or a deadline is due             -> a turn on what it found
//   self-wake   the last turn's budgets left work over                  -> a turn in the next loop iteration
//   uv_prepare  JavaScript left commands outside a turn                 -> a turn that does not poll: the thread does
//
// Without libuv there is no uv_prepare; lib/loop.ts then flushes what it leaves outside a turn.
#include <atomic>

#include "core/waiter.h"
#include "node/driver.h"

namespace edgewire {
namespace {

// What the two have in common: all but the way to wake the loop.
class WaiterDriver : public Driver {
 public:
  void schedule() noexcept override {
    if (!running_) return;
    if (setting_.reactor->wants_turn() || !waiter_.resume(setting_.reactor->next_turn_ms())) wake();
  }

  void stop() noexcept override {
    running_ = false;
    waiter_.stop();
  }

 protected:
  // Makes the loop call woken(), once for any number of calls before that. From any thread.
  virtual void send_wake() noexcept = 0;

  int start(const Setting& setting) noexcept {
    setting_ = setting;
    int error = waiter_.start(
        setting.reactor->poller(), [](void* self) noexcept { static_cast<WaiterDriver*>(self)->wake(); }, this);
    running_ = error == 0;
    return error;
  }

  void wake() noexcept {
    if (!wake_sent_.exchange(true, std::memory_order_acq_rel)) send_wake();
  }

  void woken() noexcept {
    wake_sent_.store(false, std::memory_order_release);
    if (!running_) return;
    setting_.reactor->note_wake();
    run();
  }

  void run() noexcept {
    int count = 0;
    const PollEvent* events = waiter_.take(&count);
    if (events != nullptr) setting_.reactor->offer(events, count);
    setting_.run_turn(setting_.context, events != nullptr ? Look::kOffered : Look::kNever);
  }

  Setting setting_{};
  Waiter waiter_;
  std::atomic<bool> wake_sent_{false};
  bool running_ = false;
};

// ---- waiter ---------------------------------------------------------------------------------------------------------

class UvWaiterDriver final : public WaiterDriver {
 public:
  explicit UvWaiterDriver(const UvApi& uv) : uv_(uv), handles_(uv) {}

  int open(const Setting& setting) noexcept override {
    int error = uv_.async_init(setting.loop, &async_, [](uv_async_t* handle) { of(handle->data)->woken(); });
    if (error < 0) return error;
    uv_.prepare_init(setting.loop, &prepare_);
    handles_.add(&async_, this);
    handles_.add(&prepare_, this);
    uv_.prepare_start(&prepare_, [](uv_prepare_t* handle) { of(handle->data)->before_blocking(); });
    return start(setting);
  }

  void set_ref(bool on) noexcept override {
    if (!running_) return;
    auto* handle = reinterpret_cast<uv_handle_t*>(&async_);
    on ? uv_.ref(handle) : uv_.unref(handle);
  }

  void stop() noexcept override {
    if (running_) uv_.prepare_stop(&prepare_);
    WaiterDriver::stop();
  }

  void close(Closed closed, void* context) noexcept override { handles_.close(closed, context); }

 private:
  static UvWaiterDriver* of(void* data) noexcept { return static_cast<UvWaiterDriver*>(data); }

  void send_wake() noexcept override { uv_.async_send(&async_); }

  void before_blocking() noexcept {
    if (setting_.reactor->has_commands()) run();
  }

  const UvApi& uv_;
  UvHandles handles_;
  uv_async_t async_{};
  uv_prepare_t prepare_{};
};

// ---- waiter-tsfn ----------------------------------------------------------------------------------------------------

class TsfnWaiterDriver final : public WaiterDriver {
 public:
  // A call of the function inside its own callback is served before anything else of the loop, in Node up to 1000 times:
  // a turn for the work that is left comes by way of the thread, and timers and other sockets come between.
  void schedule() noexcept override {
    if (!running_) return;
    Reactor& reactor = *setting_.reactor;
    if (!waiter_.resume(reactor.wants_turn() ? 0 : reactor.next_turn_ms())) wake();
  }

  int open(const Setting& setting) noexcept override {
    napi_value name;
    napi_status status = napi_create_string_utf8(setting.env, "edgewire", NAPI_AUTO_LENGTH, &name);
    if (status == napi_ok) {
      status = napi_create_threadsafe_function(setting.env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this,
                                               on_wake, &function_);
    }
    if (status != napi_ok) return -ENOMEM;
    env_ = setting.env;
    napi_unref_threadsafe_function(env_, function_);
    return start(setting);
  }

  void set_ref(bool on) noexcept override {
    if (!running_) return;
    on ? napi_ref_threadsafe_function(env_, function_) : napi_unref_threadsafe_function(env_, function_);
  }

  void close(Closed closed, void* context) noexcept override {
    if (function_ != nullptr) napi_release_threadsafe_function(function_, napi_tsfn_abort);
    closed(context);
  }

 private:
  static void on_wake(napi_env env, napi_value, void* context, void*) {
    // Without an environment the function is being torn down, and the driver may be gone.
    if (env != nullptr) static_cast<TsfnWaiterDriver*>(context)->woken();
  }

  void send_wake() noexcept override { napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking); }

  napi_env env_ = nullptr;
  napi_threadsafe_function function_ = nullptr;
};

}  // namespace

std::unique_ptr<Driver> make_waiter_driver(const UvApi* uv) {
  if (uv == nullptr) return std::make_unique<TsfnWaiterDriver>();
  return std::make_unique<UvWaiterDriver>(*uv);
}

}  // namespace edgewire
