#include "load_rate.h"

#include <sys/prctl.h>
#include <sys/timerfd.h>

#include <algorithm>

#include "load_echo.h"

namespace edgewire::bench {

Alarm::Alarm(Poller& poller) : timer_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
  if (timer_.get() < 0) fail("timerfd_create: %s", std::strerror(errno));
  prctl(PR_SET_TIMERSLACK, 1UL);  // or the kernel is free to be 50 us late
  poller.add(timer_, kToken);
}

bool Alarm::setFor(uint64_t instant, uint64_t now) {
  if (instant < now + kAwakeNs) return false;
  if (setFor_ == instant) return true;
  constexpr uint64_t kNsPerSecond = 1'000'000'000;
  const uint64_t wake = instant - kAwakeNs;
  itimerspec when{};
  when.it_value = {static_cast<time_t>(wake / kNsPerSecond), static_cast<long>(wake % kNsPerSecond)};
  // Edge-triggered, a new expiry makes a new edge though the old one has not been read.
  if (timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr) != 0)
    fail("timerfd_settime: %s", std::strerror(errno));
  setFor_ = instant;
  return true;
}

void EchoClients::runAtRate() {
  phase_ = Phase::running;
  Alarm alarm(poller_);
  fillStalled();
  trial_.begin();
  schedule_.begin(nowNs());
  for (uint64_t now; trial_.running(now = nowNs());) {
    startDue(now);
    poll(alarm.setFor(schedule_.nextInstant(), nowNs()) ? kPollMs : 0);
  }
}

// When we are late ourselves, the answers that have arrived meanwhile get their turn in between.
void EchoClients::startDue(uint64_t now) {
  constexpr int kMostAtOnce = 256;
  uint32_t client;
  for (int i = 0; i < kMostAtOnce && schedule_.next(now, client); i++) send(client);
}

void EchoClients::drainAtRate() {
  constexpr uint64_t kPatienceNs = 1'000'000'000;
  // Messages that we had no time for are begun now: not to count them would hide that the rate was not held.
  schedule_.catchUp(nowNs());
  const auto active = static_cast<uint32_t>(options_.connections);
  for (uint32_t index = 0; index < active; index++) send(index);
  const auto answered = [this](uint32_t index) { return clients_[index].received / protocol_.replySize(); };
  const auto allAnswered = [&] {
    for (uint32_t index = 0; index < active; index++) {
      if (answered(index) < schedule_.dueOf(index)) return false;
    }
    return true;
  };
  const uint64_t begin = nowNs();
  bool done = allAnswered();
  while (!done && nowNs() < begin + kPatienceNs) {
    poll(1);
    done = allAnswered();
  }
  if (done) return drain();
  const uint64_t now = nowNs();
  for (uint32_t index = 0; index < active; index++) {
    const uint64_t due = schedule_.dueOf(index);
    for (uint64_t message = answered(index); message < due; message++) {
      trial_.miss(schedule_.instantOfMessage(index, message), now);
    }
  }
}

}  // namespace edgewire::bench
