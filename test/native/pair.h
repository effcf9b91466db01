// Two connected sockets: ours, as the poller would have it, and the peer's.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>

#include "core/sys.h"
#include "peer.h"

namespace edgewire::test {

constexpr int kArrivalMs = 5'000;  // by then anything on this machine has come

inline bool wait_readable(int fd, int timeout_ms = kArrivalMs) {
  pollfd ready{fd, POLLIN, 0};
  return ::poll(&ready, 1, timeout_ms) == 1;
}

struct Pair {
  Pair() : Pair(local_address()) {}
  explicit Pair(const SocketAddress& at) {
    PlainListener listener(at);
    peer = std::make_unique<Peer>(at.family() == AF_UNIX ? at : listener.address);
    EXPECT_TRUE(wait_readable(listener.fd));
    fd = real_sys().accept(listener.fd, nullptr, nullptr);
    EXPECT_GE(fd, 0);
  }
  ~Pair() { close(); }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  void close() {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
  // What has arrived, at most `bytes_max`.
  std::string receive(size_t bytes_max = 1'000) const {
    std::string into(bytes_max, 0);
    const ssize_t got = ::recv(fd, into.data(), into.size(), MSG_DONTWAIT);
    into.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return into;
  }
  // Sends until the kernel takes no more.
  void fill() const {
    const std::string block(256 * 1024, 'x');
    while (real_sys().send(fd, block.data(), block.size()) > 0) continue;
    EXPECT_EQ(real_sys().send(fd, "x", 1), -EAGAIN);
  }

  std::unique_ptr<Peer> peer;
  int fd = -1;
};

}  // namespace edgewire::test
