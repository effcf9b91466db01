// The other end of the reactor's connections: plain non-blocking sockets, and the fixture that gives the reactor its
// turns and sees that everything has come back in the end.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/sys.h"
#include "fake_host.h"

namespace edgewire::test {

uint64_t seed();  // main.cc

// macOS has it on the socket instead (SO_NOSIGPIPE), where real_sys().socket() and accept() set it.
#ifdef __linux__
constexpr int kNoSignal = MSG_NOSIGNAL;
#else
constexpr int kNoSignal = 0;
#endif

class Peer {
 public:
  explicit Peer(int fd) : fd_(fd) {}
  explicit Peer(const SocketAddress& to) : fd_(real_sys().socket(to.family(), SOCK_STREAM)) {
    const int result = ::connect(fd_, to.get(), to.length);
    EXPECT_TRUE(result == 0 || errno == EINPROGRESS) << std::strerror(errno);
  }
  ~Peer() { close(); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // How many bytes the kernel took.
  size_t send(std::string_view bytes) {
    if (bytes.empty()) return 0;  // after shutdown_write() even that is EPIPE
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), kNoSignal | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) error = errno;
    return sent < 0 ? 0 : static_cast<size_t>(sent);
  }
  // Takes what is there, at most `bytes_max`.
  void receive(size_t bytes_max = SIZE_MAX) {
    char buffer[65536];
    while (fd_ >= 0 && bytes_max > 0 && !ended && error == 0) {
      const ssize_t got = ::recv(fd_, buffer, std::min(bytes_max, sizeof buffer), MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) return;
      if (got < 0) error = errno;
      if (got == 0) ended = true;
      if (got <= 0) return;
      received.append(buffer, static_cast<size_t>(got));
      bytes_max -= static_cast<size_t>(got);
    }
  }
  void shutdown_write() { ::shutdown(fd_, SHUT_WR); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void reset() {
    linger hard{};
    hard.l_onoff = 1;
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }
  void set_buffer(int name, int bytes) { ::setsockopt(fd_, SOL_SOCKET, name, &bytes, sizeof bytes); }
  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }

  std::string received;
  bool ended = false;
  int error = 0;

 private:
  int fd_;
};

inline SocketAddress local_address(uint16_t port = 0) {
  SocketAddress address;
  EXPECT_EQ(address_from_ip("127.0.0.1", port, &address), 0);
  return address;
}
inline SocketAddress address_of(int fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  EXPECT_EQ(::getsockname(fd, address.get(), &address.length), 0);
  return address;
}

// A listening socket of the test's own, for the reactor to dial.
struct PlainListener {
  explicit PlainListener(const SocketAddress& at, int backlog = 64) : fd(real_sys().socket(at.family(), SOCK_STREAM)) {
    EXPECT_EQ(::bind(fd, at.get(), at.length), 0) << std::strerror(errno);
    EXPECT_EQ(::listen(fd, backlog), 0);
    address = address_of(fd);
  }
  ~PlainListener() { ::close(fd); }
  PlainListener(const PlainListener&) = delete;
  PlainListener& operator=(const PlainListener&) = delete;

  std::unique_ptr<Peer> accept() {
    const int accepted = real_sys().accept(fd, nullptr, nullptr);
    return accepted < 0 ? nullptr : std::make_unique<Peer>(accepted);
  }

  int fd;
  SocketAddress address;
};

inline size_t count_descriptors() {
  size_t count = 0;
  // On Linux a link to /proc/self/fd.
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/dev/fd")) count += 1;
  return count;
}

// From now on the poller takes no descriptor, whichever it is.
inline void refuse_registering() {
  sys.epoll_ctl = [](int, int, int, epoll_event*) noexcept { return -ENOSPC; };
  sys.kevent = [](int, const KqueueEvent*, int, KqueueEvent*, int, const timespec*) noexcept { return -ENOSPC; };
}
inline void allow_registering() {
  sys.epoll_ctl = real_sys().epoll_ctl;
  sys.kevent = real_sys().kevent;
}

// Stands in for CLOCK_MONOTONIC where a test says so.
inline uint64_t fake_now_ns = 0;

// Bytes that differ from their neighbours near and far, so that a lost, doubled or moved piece shows.
inline char pattern_at(uint64_t position) { return static_cast<char>((position * 0x9E3779B97F4A7C15u) >> 56); }
inline std::string pattern(uint64_t from, size_t bytes) {
  std::string out(bytes, 0);
  for (size_t i = 0; i < bytes; ++i) out[i] = pattern_at(from + i);
  return out;
}

class ReactorTest : public testing::Test {
 protected:
  static constexpr uint64_t kBudgetBytes = 64 * uint64_t{kSlabBytes};

  void SetUp() override {
    descriptors_ = count_descriptors();
    sys = real_sys();
  }

  void TearDown() override {
    clients.clear();
    if (host == nullptr) return;
    host->handle = nullptr;
    host->after_dispatch = nullptr;
    host->acknowledge = true;
    while (!host->leases.empty()) host->release(0);
    // Again and again: clients that came late may still be accepted.
    turn_until([&] {
      for (Life* life : host->all_living()) host->abort(*life);
      return host->living_count() == 0;
    });
    reactor().turn(Look::kAlways);
    for (const auto& life : host->lives) EXPECT_EQ(life->closed, 1) << "index " << life->index;
    EXPECT_EQ(reactor().connections().in_use(), 0u);
    EXPECT_EQ(reactor().pool().in_use_bytes(), 0u);
    EXPECT_TRUE(host->pins.empty());
    host.reset();
    sys = real_sys();
    EXPECT_EQ(count_descriptors(), descriptors_);
  }

  void start(uint64_t budget_bytes = kBudgetBytes) { host = std::make_unique<FakeHost>(budget_bytes); }
  void start_with_fake_clock(uint64_t budget_bytes = kBudgetBytes) {
    fake_now_ns = 1'000'000'000'000;
    sys.monotonic_ns = []() noexcept { return fake_now_ns; };
    start(budget_bytes);
  }
  Reactor& reactor() { return host->reactor; }

  double now_ms() const { return static_cast<double>(fake_now_ns) / 1e6; }
  void pass_ms(uint64_t ms) {
    fake_now_ns += ms * 1'000'000;
    turns();
  }

  // Opens a listener of the reactor's; returns where it listens.
  SocketAddress listen(SocketAddress at = local_address(), int32_t* index = nullptr) {
    const int listener = reactor().listen(at, {.low_water_bytes = host->low_water_bytes});
    EXPECT_GE(listener, 0);
    if (index != nullptr) *index = listener;
    if (at.family() == AF_UNIX) return at;
    CompactAddress compact;
    SocketAddress bound;
    EXPECT_TRUE(reactor().address(listener, abi::kAddressListener, &compact, &bound));
    return local_address(compact.port);
  }
  // Connects and gives turns until the reactor has accepted.
  std::pair<Peer&, Life&> connect(const SocketAddress& to) {
    const size_t before = host->lives.size();
    clients.push_back(std::make_unique<Peer>(to));
    turn_until([&] { return host->lives.size() > before; });
    return {*clients.back(), *host->lives.back()};
  }

  // A turn, and as many more as the reactor asks for.
  void turns() {
    int count = 0;
    do reactor().turn(Look::kAlways);
    while (reactor().wants_turn() && ++count < 1'000);
    EXPECT_LT(count, 1'000) << "asks for turns without end";
  }
  // Gives turns until `done`; fails when nothing more happens.
  bool turn_until(const std::function<bool()>& done) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    for (;;) {
      reactor().turn(Look::kAlways);
      if (done()) return true;
      if (std::chrono::steady_clock::now() > limit) {
        ADD_FAILURE() << "waited in vain";
        return false;
      }
      pollfd ready{reactor().poll_fd(), POLLIN, 0};
      if (!reactor().wants_turn()) ::poll(&ready, 1, 1);
    }
  }
  bool receive_until_end(Peer& peer) {
    return turn_until([&] {
      peer.receive();
      return peer.ended || peer.error != 0;
    });
  }
  // Sends all of `bytes` while the reactor has its turns.
  bool send_all(Peer& peer, std::string_view bytes) {
    return turn_until([&] {
      bytes.remove_prefix(peer.send(bytes));
      return bytes.empty() || peer.error != 0;
    });
  }

  SocketAddress unix_address() {
    SocketAddress address;
    const std::string path = "/tmp/edgewire-" + std::to_string(::getpid()) + "-" + std::to_string(next_path_++);
    EXPECT_EQ(address_from_path(path.data(), path.size(), &address), 0);
    return address;
  }
  static std::string path_of(const SocketAddress& address) {
    return reinterpret_cast<const sockaddr_un*>(&address.storage)->sun_path;
  }
  std::unique_ptr<FakeHost> host;
  std::vector<std::unique_ptr<Peer>> clients;

 private:
  size_t descriptors_ = 0;
  int next_path_ = 0;
};

}  // namespace edgewire::test
