#include "core/waiter.h"

#include <signal.h>

#include <algorithm>

#include "core/check.h"
#include "core/sys.h"

namespace edgewire {
namespace {

class Lock {
 public:
  explicit Lock(pthread_mutex_t& mutex) noexcept : mutex_(mutex) { pthread_mutex_lock(&mutex_); }
  ~Lock() { pthread_mutex_unlock(&mutex_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  pthread_mutex_t& mutex_;
};

}  // namespace

int Waiter::start(Poller& poller, Wake wake, void* context) noexcept {
  EDGEWIRE_CHECK(state_ == State::kStopped);
  poller_ = &poller;
  wake_ = wake;
  context_ = context;
  count_ = 0;
  stopping_ = false;
  state_ = State::kParked;
  // The process's signals are not this thread's to handle. It inherits the mask.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&thread_, nullptr, run_thread, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) state_ = State::kStopped;
  return -error;
}

void Waiter::stop() noexcept {
  {
    Lock lock(mutex_);
    if (state_ == State::kStopped) return;
    stopping_ = true;
    if (state_ == State::kWaiting) poller_->wake();
    pthread_cond_signal(&changed_);
  }
  pthread_join(thread_, nullptr);
  state_ = State::kStopped;
}

const PollEvent* Waiter::take(int* count) noexcept {
  Lock lock(mutex_);
  if (state_ != State::kParked) return nullptr;
  *count = count_;
  count_ = 0;
  return events_;
}

// One step under the lock: between a look at the state and a change of it the thread may park itself with events.
bool Waiter::resume(double until_ms) noexcept {
  Lock lock(mutex_);
  if (state_ == State::kWaiting) {
    if (until_ms >= until_ms_) return true;
    until_ms_ = until_ms;
    poller_->wake();
    return true;
  }
  if (state_ == State::kStopped) return true;
  if (count_ > 0) return false;
  until_ms_ = until_ms;
  state_ = State::kWaiting;
  pthread_cond_signal(&changed_);
  return true;
}

void* Waiter::run_thread(void* self) noexcept {
  static_cast<Waiter*>(self)->run();
  return nullptr;
}

void Waiter::run() noexcept {
  pthread_mutex_lock(&mutex_);
  while (!stopping_) {
    if (state_ == State::kParked) {
      pthread_cond_wait(&changed_, &mutex_);
      continue;
    }
    int limit_ms = timeout_ms(until_ms_);
    pthread_mutex_unlock(&mutex_);
    int count = poller_->wait(events_, Poller::kEventsPerWait, limit_ms);
    pthread_mutex_lock(&mutex_);
    // Nothing yet: a signal, or resume() and stop(), which wake the poller. A poller that fails is the loop's to meet.
    if (stopping_ || (count == 0 && monotonic_ms() < until_ms_)) continue;
    count_ = std::max(count, 0);
    state_ = State::kParked;
    pthread_mutex_unlock(&mutex_);
    wake_(context_);
    pthread_mutex_lock(&mutex_);
  }
  pthread_mutex_unlock(&mutex_);
}

}  // namespace edgewire
