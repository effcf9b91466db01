// Echo, and echo with a deadline: a connection that says nothing for so long is closed.
#include <ctime>

#include "floor_loop.h"

namespace edgewire::bench {
namespace {

template <typename App, typename Conn>
class EchoLoop : public FloorLoop<App, Conn> {
 public:
  using Loop = FloorLoop<App, Conn>;
  using Loop::Loop;

  void onEvent(int fd, uint32_t events) {
    if (this->conns_[fd].rest != nullptr) {
      const Sent sent = this->sendRest(fd);
      if (sent == Sent::failed) return this->close(fd);
      // Edges of the reading side that arrive while we are blocked are lost, so afterwards everything has to be read.
      if (sent == Sent::all) echo(fd, /*untilEmpty=*/true);
      return;
    }
    if (Loop::isInput(events)) echo(fd, Loop::isHangup(events));
  }

  void onEnd(int fd) { this->close(fd); }

 protected:
  void onMessage(int) {}

 private:
  void echo(int fd, bool untilEmpty) {
    this->readAll(fd, untilEmpty, [this, fd](size_t length) {
      static_cast<App*>(this)->onMessage(fd);
      const Sent sent = this->sendOrKeep(fd, this->buffer_, length);
      if (sent == Sent::failed) this->close(fd);
      return sent == Sent::all;
    });
  }
};

class Echo : public EchoLoop<Echo, Output> {
 public:
  using EchoLoop::EchoLoop;
};

struct DeadlineConn : Output {
  uint64_t deadlineMs;  // 0: not a connection
};

// The least that keeps the promise: a message stores a number, and once a second all of them are looked at.
class Deadline : public EchoLoop<Deadline, DeadlineConn> {
 public:
  explicit Deadline(const Config& config)
      : EchoLoop(config), lengthMs_(static_cast<uint64_t>(config.deadlineSeconds) * 1000) {}

  void onOpen(int fd) {
    if (fd > highest_) highest_ = fd;
    onMessage(fd);
  }
  void onMessage(int fd) { conns_[fd].deadlineMs = nowMs_ + lengthMs_; }
  int waitMs() const { return kSweepMs; }
  void beforeBatch() { nowMs_ = readClock(); }
  void afterBatch() {
    if (nowMs_ < nextSweepMs_) return;
    nextSweepMs_ = nowMs_ + kSweepMs;
    for (int fd = 0; fd <= highest_; fd++) {
      if (conns_[fd].deadlineMs != 0 && conns_[fd].deadlineMs <= nowMs_) close(fd);
    }
  }

 private:
  static constexpr int kSweepMs = 1000;

  static uint64_t readClock() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);  // as of the last tick: a few nanoseconds instead of tens
    return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
  }

  const uint64_t lengthMs_;
  uint64_t nowMs_ = 0;
  uint64_t nextSweepMs_ = 0;
  int highest_ = -1;
};

}  // namespace

// Static, not on the stack, here and in the other apps: they hold the read buffer.
void serveEcho(const Config& config) {
  static Echo server(config);
  server.run();
}

void serveDeadline(const Config& config) {
  static Deadline server(config);
  server.run();
}

}  // namespace edgewire::bench
