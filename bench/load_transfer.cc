// Large transfers in one direction, each over a connection of its own, one after the other: to the server (sink), which
// answers our FIN with the count of the bytes; or from it (source), as many as we ask for.
//
// A message, as the report counts it, is 64 KiB moved on one connection and the next ones that take its place, and its
// latency is the time since the 64 KiB before: the whole transfer is too few for a quantile.
#include <algorithm>
#include <array>
#include <cinttypes>
#include <vector>

#include "load_net.h"
#include "load_pattern.h"
#include "load_stats.h"

namespace edgewire::bench {
namespace {

constexpr size_t kCountBytes = 8;  // big-endian

std::array<uint8_t, kCountBytes> toBigEndian(uint64_t value) {
  std::array<uint8_t, kCountBytes> bytes;
  for (size_t i = 0; i < kCountBytes; i++) bytes[i] = static_cast<uint8_t>(value >> (8 * (kCountBytes - 1 - i)));
  return bytes;
}

uint64_t fromBigEndian(const std::array<uint8_t, kCountBytes>& bytes) {
  uint64_t value = 0;
  for (const uint8_t byte : bytes) value = value << 8 | byte;
  return value;
}

// What a source sends: byte i is i modulo 251. A sink is sent the same.
Pattern makeCycle() {
  constexpr size_t kCycle = 251;
  std::vector<uint8_t> bytes(kCycle);
  for (size_t i = 0; i < kCycle; i++) bytes[i] = static_cast<uint8_t>(i);
  return Pattern(std::move(bytes), 0);
}

class Transfers {
 public:
  Transfers(const Options& options, Trial& trial)
      : options_(options),
        trial_(trial),
        pattern_(makeCycle()),
        dialer_(options),
        slots_(static_cast<size_t>(options.connections)),
        buffer_(Pattern::kWindow) {
    raiseFdLimit(options.connections);
  }

  void run() {
    trial_.begin();
    for (Slot& slot : slots_) restart(slot);
    while (trial_.running(nowNs())) poll();
    stopping_ = true;
    while (active_ > 0) {  // what was begun is checked to its end
      poll();
      trial_.checkProgress(nowNs());
    }
  }

 private:
  enum class State {
    connecting,
    sending,    // sink: our bytes are on their way
    counting,   // sink: our FIN is sent, the count is awaited
    receiving,  // source: the server's bytes are on their way
    ending,     // all has come; the server's FIN is awaited
  };
  struct Slot {
    Fd fd;
    State state = State::connecting;
    uint64_t moved = 0;  // bytes of this transfer
    std::array<uint8_t, kCountBytes> count{};
    size_t countLength = 0;
    uint64_t unreported = 0;  // bytes since the last message, of this transfer and those before it
    uint64_t messageNs = 0;   // when that was
  };
  static constexpr uint64_t kMessageBytes = 64 * 1024;
  static constexpr int kPollMs = 50;

  void poll() {
    poller_.poll(kPollMs, [this](uint64_t token, uint32_t events) { onEvent(slots_[token], events); });
  }

  uint64_t tokenOf(const Slot& slot) const { return static_cast<uint64_t>(&slot - slots_.data()); }

  void restart(Slot& slot) {
    slot.fd.reset();
    if (stopping_) return;
    active_++;
    slot.state = State::connecting;
    slot.moved = 0;
    slot.countLength = 0;
    if (slot.messageNs == 0) slot.messageNs = nowNs();
    slot.fd = dialer_.dial();
    poller_.addLevel(slot.fd, tokenOf(slot), EPOLLOUT);
  }

  void onEvent(Slot& slot, uint32_t events) {
    switch (slot.state) {
      case State::connecting: return connected(slot);
      case State::sending: return events & EPOLLIN ? refuseEarlyAnswer(slot) : sendSome(slot);
      case State::counting: return receiveCount(slot);
      case State::receiving: return receiveSome(slot);
      case State::ending: return awaitFin(slot);
    }
  }

  void connected(Slot& slot) {
    int problem = 0;
    socklen_t length = sizeof problem;
    getsockopt(slot.fd.get(), SOL_SOCKET, SO_ERROR, &problem, &length);
    if (problem != 0) fail("connect: %s", std::strerror(problem));
    if (options_.mode == Mode::sink) {
      slot.state = State::sending;
      poller_.setLevel(slot.fd, tokenOf(slot), EPOLLIN | EPOLLOUT);
      return;
    }
    const auto wanted = toBigEndian(options_.size);
    if (::send(slot.fd.get(), wanted.data(), wanted.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(wanted.size())) {
      fail("send: %s", std::strerror(errno));
    }
    slot.state = State::receiving;
    poller_.setLevel(slot.fd, tokenOf(slot), EPOLLIN);
  }

  void sendSome(Slot& slot) {
    const size_t length = std::min<uint64_t>(options_.size - slot.moved, Pattern::kWindow);
    const ssize_t put = ::send(slot.fd.get(), pattern_.at(0, slot.moved), length, MSG_NOSIGNAL);
    if (put < 0) {
      if (errno == EAGAIN || errno == EINTR) return;
      fail("send: %s after %" PRIu64 " of %zu bytes", std::strerror(errno), slot.moved, options_.size);
    }
    account(slot, static_cast<uint64_t>(put));
    if (slot.moved < options_.size) return;
    if (shutdown(slot.fd.get(), SHUT_WR) != 0) fail("shutdown: %s", std::strerror(errno));
    slot.state = State::counting;
    poller_.setLevel(slot.fd, tokenOf(slot), EPOLLIN);
  }

  // A sink is silent until it has seen our FIN.
  void refuseEarlyAnswer(Slot& slot) {
    const ssize_t got = receive(slot, buffer_.size());
    if (got > 0) fail("the server answered after %" PRIu64 " of %zu bytes", slot.moved, options_.size);
    if (got == 0) fail("the server closed a connection after %" PRIu64 " of %zu bytes", slot.moved, options_.size);
  }

  void receiveCount(Slot& slot) {
    // One byte more than there may be.
    const ssize_t got = receive(slot, kCountBytes - slot.countLength + 1);
    if (got < 0) return;
    if (got == 0)
      fail("the server closed a connection after %zu of %zu bytes of its count", slot.countLength, kCountBytes);
    if (static_cast<size_t>(got) > kCountBytes - slot.countLength) fail("the server sent more than its count");
    std::copy_n(buffer_.data(), got, slot.count.begin() + static_cast<ptrdiff_t>(slot.countLength));
    slot.countLength += static_cast<size_t>(got);
    if (slot.countLength < kCountBytes) return;
    const uint64_t count = fromBigEndian(slot.count);
    if (count != options_.size) fail("the server has counted %" PRIu64 " of %zu bytes", count, options_.size);
    slot.state = State::ending;
  }

  void receiveSome(Slot& slot) {
    const ssize_t got = receive(slot, buffer_.size());
    if (got < 0) return;
    if (got == 0) fail("the server closed a connection after %" PRIu64 " of %zu bytes", slot.moved, options_.size);
    const auto length = static_cast<size_t>(got);
    if (length > options_.size - slot.moved) fail("the server sent more than the %zu bytes asked for", options_.size);
    const size_t good = pattern_.mismatch(0, slot.moved, buffer_.data(), length);
    if (good != length) {
      fail("byte %" PRIu64 " of a transfer is 0x%02x instead of 0x%02x", slot.moved + good, buffer_[good],
           *pattern_.at(0, slot.moved + good));
    }
    account(slot, length);
    if (slot.moved == options_.size) slot.state = State::ending;
  }

  void awaitFin(Slot& slot) {
    const ssize_t got = receive(slot, buffer_.size());
    if (got < 0) return;
    if (got > 0) fail("the server sent %zd bytes too many", got);
    active_--;
    trial_.progress(nowNs());
    restart(slot);
  }

  // Bytes received, 0 at the server's FIN, or less if there is nothing now.
  ssize_t receive(Slot& slot, size_t length) {
    const ssize_t got = recv(slot.fd.get(), buffer_.data(), length, 0);
    if (got < 0 && errno != EAGAIN && errno != EINTR) fail("receive: %s", std::strerror(errno));
    return got;
  }

  void account(Slot& slot, uint64_t bytes) {
    const uint64_t now = nowNs();
    slot.moved += bytes;
    slot.unreported += bytes;
    trial_.addBytes(bytes, now);
    const uint64_t messages = slot.unreported / kMessageBytes;
    if (messages == 0) return;
    // Those that came in one piece share its time.
    const uint64_t each = (now - slot.messageNs) / messages;
    for (uint64_t i = 0; i < messages; i++) trial_.complete(now - each, now, 0);
    slot.unreported %= kMessageBytes;
    slot.messageNs = now;
  }

  const Options& options_;
  Trial& trial_;
  Pattern pattern_;
  Dialer dialer_;
  Poller poller_;
  std::vector<Slot> slots_;
  ReceiveBuffer buffer_;
  int active_ = 0;
  bool stopping_ = false;
};

}  // namespace

int runTransfer(const Options& options) {
  Trial trial(options);
  Transfers transfers(options, trial);
  transfers.run();
  trial.printJson();
  return 0;
}

}  // namespace edgewire::bench
