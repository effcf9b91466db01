// Connections that come and go: a number of loops, each of which connects, has one message echoed, closes, and starts
// again. The open-close mode leaves the message out, and waits for the server's FIN instead. The burst mode lets all
// loops connect at once, and close and start again when all have their message back; its window holds whole bursts.
#include <algorithm>
#include <cinttypes>
#include <vector>

#include "load_net.h"
#include "load_pattern.h"
#include "load_stats.h"

namespace edgewire::bench {
namespace {

class ChurnLoops {
 public:
  ChurnLoops(const Options& options, Trial& trial)
      : options_(options),
        trial_(trial),
        dialer_(options),
        loops_(static_cast<size_t>(options.connections)),
        buffer_(Pattern::kWindow) {
    raiseFdLimit(options.connections);
  }

  void run() {
    trial_.begin();
    options_.mode == Mode::burst ? runBursts() : runLoops();
  }

 private:
  enum class State {
    connecting,
    exchanging,  // churn: the message is on its way there or back
    closing,     // open-close: our FIN is sent, the server's is awaited
    served,      // burst: the message is back, other connections' are not
  };
  struct Loop {
    Fd fd;
    State state = State::connecting;
    uint64_t stream = 0;  // each connection has bytes of its own
    uint64_t startedNs = 0;
    uint64_t sent = 0;
    uint64_t received = 0;
  };
  static constexpr int kPollMs = 50;

  void runLoops() {
    restartAll();
    while (trial_.running(nowNs())) poll();
    stopping_ = true;
    untilAllServed();
  }

  // The phases change between bursts only. Within one, a server's work comes in waves, and may pause for longer than a
  // window lasts: where the backlog was full, the kernel sends the connect again after a second.
  void runBursts() {
    while (trial_.running(nowNs())) {
      restartAll();
      untilAllServed();
    }
  }

  void untilAllServed() {
    while (active_ > 0) {
      poll();
      trial_.checkProgress(nowNs());
    }
  }

  void poll() {
    // The token is the loop, not the connection: a loop closes its connection only while it handles that connection's
    // one event of the batch (a burst: between two batches), so no event of a former connection can be left over.
    poller_.poll(kPollMs, [this](uint64_t token, uint32_t events) { onEvent(loops_[token], events); });
  }

  void restart(Loop& loop) {
    if (stopping_) return;
    active_++;
    loop = Loop{};
    loop.stream = nextStream_++;
    loop.startedNs = nowNs();
    loop.fd = dialer_.dial();
    poller_.add(loop.fd, static_cast<uint64_t>(&loop - loops_.data()));
  }

  // The connections of a former burst are closed first: no server has to hold those of two.
  void restartAll() {
    for (Loop& loop : loops_) loop.fd.reset();
    for (Loop& loop : loops_) restart(loop);
  }

  void finish(Loop& loop) {
    active_--;
    trial_.complete(loop.startedNs, nowNs(), loop.received);
    if (options_.mode == Mode::burst) {
      loop.state = State::served;
      return;
    }
    loop.fd.reset();  // everything has been read, so this sends FIN, not RST
    restart(loop);
  }

  void onEvent(Loop& loop, uint32_t events) {
    if (loop.state == State::connecting) connected(loop);
    if (loop.state == State::closing) return awaitFin(loop);
    if (events & EPOLLOUT) send(loop);  // nothing, if all has been sent
    if (events & ~static_cast<uint32_t>(EPOLLOUT)) receive(loop);
  }

  void connected(Loop& loop) {
    int problem = 0;
    socklen_t length = sizeof problem;
    getsockopt(loop.fd.get(), SOL_SOCKET, SO_ERROR, &problem, &length);
    if (problem != 0) fail("connect: %s", std::strerror(problem));
    loop.state = State::exchanging;
    if (options_.mode != Mode::openClose) return;
    loop.state = State::closing;
    if (shutdown(loop.fd.get(), SHUT_WR) != 0) fail("shutdown: %s", std::strerror(errno));
  }

  void send(Loop& loop) {
    while (loop.sent < options_.size) {
      const size_t length = std::min<uint64_t>(options_.size - loop.sent, Pattern::kWindow);
      const ssize_t put = ::send(loop.fd.get(), pattern_.at(loop.stream, loop.sent), length, MSG_NOSIGNAL);
      if (put >= 0) {
        loop.sent += static_cast<uint64_t>(put);
      } else if (errno == EAGAIN) {
        return;
      } else if (errno != EINTR) {
        fail("send: %s", std::strerror(errno));
      }
    }
  }

  void receive(Loop& loop) {
    for (;;) {
      const ssize_t got = recv(loop.fd.get(), buffer_.data(), buffer_.size(), 0);
      if (got > 0) {
        check(loop, static_cast<size_t>(got));
        if (loop.received < options_.size) continue;
        finish(loop);
        if (loop.state != State::served) return;  // else the same connection: nothing more may come, and no end
      } else if (got == 0) {
        fail("the server closed a connection after %" PRIu64 " of %zu bytes", loop.received, options_.size);
      } else if (errno == EAGAIN) {
        return;
      } else if (errno != EINTR) {
        fail("receive: %s", std::strerror(errno));
      }
    }
  }

  void check(Loop& loop, size_t length) {
    if (length > loop.sent - loop.received) fail("the server sent more than it was sent");
    const size_t good = pattern_.mismatch(loop.stream, loop.received, buffer_.data(), length);
    if (good != length) {
      fail("byte %" PRIu64 " of a message is 0x%02x instead of 0x%02x", loop.received + good, buffer_[good],
           *pattern_.at(loop.stream, loop.received + good));
    }
    loop.received += length;
  }

  void awaitFin(Loop& loop) {
    const ssize_t got = recv(loop.fd.get(), buffer_.data(), buffer_.size(), 0);
    if (got == 0) return finish(loop);
    if (got > 0) fail("the server sent bytes on a connection that had sent none");
    if (errno != EAGAIN && errno != EINTR) fail("receive: %s", std::strerror(errno));
  }

  const Options& options_;
  Trial& trial_;
  Pattern pattern_;
  Dialer dialer_;
  Poller poller_;
  std::vector<Loop> loops_;
  std::vector<uint8_t> buffer_;
  uint64_t nextStream_ = 0;
  int active_ = 0;
  bool stopping_ = false;
};

}  // namespace

int runChurn(const Options& options) {
  Trial trial(options);
  ChurnLoops loops(options, trial);
  loops.run();
  trial.printJson();
  return 0;
}

}  // namespace edgewire::bench
