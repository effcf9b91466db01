// Bytes in one direction. A sink drops what comes and answers the peer's FIN with the count; a source sends as many bytes
// as it is asked for, byte i being i modulo 251. Both then close.
#include <algorithm>

#include "floor_loop.h"

namespace edgewire::bench {
namespace {

constexpr size_t kCountBytes = 8;  // big-endian

struct SinkConn : Output {
  uint64_t count;
  bool answered;
};

class Sink : public FloorLoop<Sink, SinkConn> {
 public:
  using FloorLoop::FloorLoop;

  void onEvent(int fd, uint32_t events) {
    if (conns_[fd].answered) {
      if (sendRest(fd) != Sent::kept) close(fd);
    } else if (isInput(events)) {
      readAll(fd, isHangup(events), [this, fd](size_t length) {
        conns_[fd].count += length;
        return true;
      });
    }
  }

  void onEnd(int fd) {
    char count[kCountBytes];
    for (size_t i = 0; i < kCountBytes; i++)
      count[i] = static_cast<char>(conns_[fd].count >> (8 * (kCountBytes - 1 - i)));
    conns_[fd].answered = true;
    if (sendOrKeep(fd, count, kCountBytes) != Sent::kept) close(fd);
  }
};

struct SourceConn : Output {
  uint64_t wanted;
  uint64_t sent;
  size_t asked;  // bytes of the request that have come; all of them: it sends
};

class Source : public FloorLoop<Source, SourceConn> {
 public:
  explicit Source(const Config& config) : FloorLoop(config) {
    for (size_t i = 0; i < sizeof cycles_; i++) cycles_[i] = static_cast<char>(i % kCycle);
  }

  void onEvent(int fd, uint32_t events) {
    if (conns_[fd].asked == kCountBytes) return sendSome(fd);
    if (!isInput(events)) return;
    readAll(fd, isHangup(events), [this, fd](size_t length) { return ask(fd, length); });
  }

  void onEnd(int fd) { close(fd); }

 private:
  static constexpr size_t kCycle = 251;
  static constexpr size_t kSendBytes = kCycle * 1024;

  bool ask(int fd, size_t length) {
    SourceConn& conn = conns_[fd];
    for (size_t i = 0; i < length && conn.asked < kCountBytes; i++, conn.asked++) {
      conn.wanted = conn.wanted << 8 | static_cast<uint8_t>(buffer_[i]);
    }
    if (conn.asked < kCountBytes) return true;
    sendSome(fd);
    return false;
  }

  void sendSome(int fd) {
    SourceConn& conn = conns_[fd];
    while (conn.sent < conn.wanted) {
      const size_t length = std::min<uint64_t>(conn.wanted - conn.sent, kSendBytes);
      const ssize_t put = send(fd, cycles_ + conn.sent % kCycle, length, MSG_NOSIGNAL);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0 && errno != EAGAIN) return close(fd);
      if (put > 0) conn.sent += static_cast<uint64_t>(put);
      if (put < static_cast<ssize_t>(length)) {
        if (!conn.outArmed) armOut(fd);
        return;
      }
    }
    close(fd);
  }

  char cycles_[kSendBytes + kCycle];
};

}  // namespace

void serveSink(const Config& config) {
  static Sink server(config);
  server.run();
}

void serveSource(const Config& config) {
  static Source server(config);
  server.run();
}

}  // namespace edgewire::bench
