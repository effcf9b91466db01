// The open loop: message k of all that a trial sends is begun at a fixed instant, on connection k modulo their number.
//
// A closed loop asks a slow server less often: while the server pauses, the messages that a user would have sent are
// not sent, and their long waits are missing from the latencies (coordinated omission). Here the instants are decided
// beforehand, and a latency counts from its instant, also when the message could not be sent before some time later.
#pragma once

#include <cstdint>

#include "load_net.h"

namespace edgewire::bench {

class Schedule {
 public:
  // Clients whose message `kFirstMessage - 1` and those before it were sent by somebody else.
  static constexpr uint64_t kFirstMessage = 1;

  Schedule(uint64_t rate, uint32_t clients) : rate_(rate), clients_(clients) {}

  void begin(uint64_t now) { beginNs_ = now; }

  // The clients whose turn has come, one for each message, in order; false if nothing is due.
  bool next(uint64_t now, uint32_t& client) {
    if (instantOf(due_) > now) return false;
    client = static_cast<uint32_t>(due_++ % clients_);
    return true;
  }
  // All that should have begun by now has its turn at once.
  void catchUp(uint64_t now) {
    for (uint32_t client; next(now, client);) {
    }
  }
  uint64_t nextInstant() const { return instantOf(due_); }

  // The number of messages of this client that are due, those before kFirstMessage included.
  uint64_t dueOf(uint32_t client) const {
    return kFirstMessage + (due_ > client ? (due_ - client - 1) / clients_ + 1 : 0);
  }
  uint64_t instantOfMessage(uint32_t client, uint64_t message) const {
    return instantOf((message - kFirstMessage) * clients_ + client);
  }

 private:
  uint64_t instantOf(uint64_t k) const {
    constexpr uint64_t kNsPerSecond = 1'000'000'000;
    return beginNs_ + k / rate_ * kNsPerSecond + k % rate_ * kNsPerSecond / rate_;
  }

  const uint64_t rate_;
  const uint64_t clients_;
  uint64_t beginNs_ = 0;
  uint64_t due_ = 0;
};

// Wakes a poller shortly before an instant. epoll_wait counts in milliseconds, and a sleeping thread is some
// microseconds late: the last stretch is for the caller to spend awake.
class Alarm {
 public:
  static constexpr uint64_t kToken = UINT64_MAX;  // for what it reports to the poller; nothing is to be done about it

  explicit Alarm(Poller& poller);
  // True: the instant is far enough away to wait in the poller, which will be woken in time.
  bool setFor(uint64_t instant, uint64_t now);

 private:
  static constexpr uint64_t kAwakeNs = 80'000;

  Fd timer_;
  uint64_t setFor_ = 0;
};

}  // namespace edgewire::bench
