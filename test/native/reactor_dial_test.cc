// What a dial asks of the kernel besides the connection: a local address, and options that only some kernels have.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#ifdef __linux__
#include <sched.h>
#endif

#include "peer.h"

namespace edgewire::test {
namespace {

class ReactorDialOptions : public ReactorTest {
 protected:
  void SetUp() override {
    ReactorTest::SetUp();
    start_with_fake_clock();
    late_ports_ = 0;
    fast_opens_ = 0;
    answer_ = 0;
  }

  // Both options answer this, and are counted.
  void answer_options(int answer) {
    answer_ = answer;
    sys.set_late_port = [](int) noexcept {
      late_ports_++;
      return answer_;
    };
    sys.set_fast_open = [](int) noexcept {
      fast_opens_++;
      return answer_;
    };
  }

  // The connection stands and carries bytes both ways.
  void expect_alive(Life& life, const PlainListener& listener) {
    host->set_interest(life, abi::kReadStream);
    host->write(life, "there");
    turn_until([&] { return life.connected; });
    const int fd = real_sys().accept(listener.fd, nullptr, nullptr);
    ASSERT_GE(fd, 0);
    clients.push_back(std::make_unique<Peer>(fd));
    Peer& peer = *clients.back();
    peer.send("back");
    turn_until([&] {
      peer.receive();
      return peer.received == "there" && life.received == "back";
    });
  }

  int fd_of(const Life& life) { return reactor().connections().at(life.index).fd; }

  static inline int late_ports_ = 0;
  static inline int fast_opens_ = 0;
  static inline int answer_ = 0;
};

TEST_F(ReactorDialOptions, OnlyALocalAddressWithoutAPortIsBoundWithoutOne) {
  const PlainListener listener(local_address());
  answer_options(0);
  ASSERT_NE(host->dial(listener.address), nullptr);
  EXPECT_EQ(late_ports_, 0) << "no local address";
  SocketAddress local = local_address();
  Life* const life = host->dial(listener.address, DialOptions{.local = &local});
  ASSERT_NE(life, nullptr);
  EXPECT_EQ(late_ports_, 1);
  const SocketAddress bound = address_of(fd_of(*life));
  host->abort(*life);
  turn_until([&] { return life->closed != 0; });
  // That port is free again; another one is tried when a stranger was quicker.
  local = bound;
  int error = 0;
  Life* const fixed = host->dial(listener.address, DialOptions{.local = &local}, &error);
  EXPECT_TRUE(fixed != nullptr || error == -EADDRINUSE || error == -EADDRNOTAVAIL) << error;
  EXPECT_EQ(late_ports_, 1) << "a port was asked for";
  EXPECT_EQ(fast_opens_, 0) << "nobody asked for it";
}

TEST_F(ReactorDialOptions, AKernelWithoutTheOptionsConnectsAllTheSame) {
  const PlainListener listener(local_address());
  for (const int error : {-ENOPROTOOPT, -EPERM, -EINVAL}) {
    answer_options(error);
    const SocketAddress local = local_address();
    Life* const life = host->dial(listener.address, DialOptions{.local = &local, .fast_open = true});
    ASSERT_NE(life, nullptr);
    expect_alive(*life, listener);
  }
  EXPECT_EQ(late_ports_, 3);
  EXPECT_EQ(fast_opens_, 3);
}

TEST_F(ReactorDialOptions, AUnixSocketIsAskedForNeither) {
  const SocketAddress path = unix_address();
  {
    const PlainListener listener(path);
    answer_options(-ENOPROTOOPT);
    Life* const life = host->dial(path, DialOptions{.fast_open = true});
    ASSERT_NE(life, nullptr);
    expect_alive(*life, listener);
    EXPECT_EQ(late_ports_ + fast_opens_, 0);
  }
  ::unlink(path_of(path).c_str());
}

TEST_F(ReactorDialOptions, WhatTheCallerAskedForAndCannotHaveIsAnErrorAndLeavesNothing) {
  const PlainListener listener(local_address());
  const size_t before = count_descriptors();
  int error = 0;
  sys.setsockopt = [](int, int, int, const void*, socklen_t) noexcept { return -ENOBUFS; };
  EXPECT_EQ(host->dial(listener.address, DialOptions{.no_delay = true}, &error), nullptr);
  EXPECT_EQ(error, -ENOBUFS);
  Life* const life = host->dial(listener.address, DialOptions{.no_delay = false});
  ASSERT_NE(life, nullptr) << "no option is set that nobody asked for";
  host->abort(*life);
  turn_until([&] { return life->closed != 0; });
  sys.bind = [](int, const sockaddr*, socklen_t) noexcept { return -EADDRNOTAVAIL; };
  const SocketAddress local = local_address();
  EXPECT_EQ(host->dial(listener.address, DialOptions{.local = &local}, &error), nullptr);
  EXPECT_EQ(error, -EADDRNOTAVAIL);
  EXPECT_EQ(count_descriptors(), before);
}

#ifdef __linux__

TEST_F(ReactorDialOptions, TheKernelHasTakenTheLatePort) {
  const PlainListener listener(local_address());
  const SocketAddress local = local_address();
  Life* const life = host->dial(listener.address, DialOptions{.local = &local});
  ASSERT_NE(life, nullptr);
  constexpr int kBindAddressNoPort = 24;
  int on = 0;
  EXPECT_EQ(real_sys().getsockopt_int(fd_of(*life), IPPROTO_IP, kBindAddressNoPort, &on), 0);
  EXPECT_EQ(on, 1);
  EXPECT_NE(compact(address_of(fd_of(*life))).port, 0) << "connect(2) has chosen one";
  expect_alive(*life, listener);
}

// A network namespace of this thread's own, in which TCP Fast Open is on for everybody; needs root.
class PrivateNetwork {
 public:
  PrivateNetwork() : outside_(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    if (outside_ < 0 || ::unshare(CLONE_NEWNET) != 0) return;
    inside_ = true;
    usable_ = raise_loopback() && switch_on_fast_open();
  }
  ~PrivateNetwork() {
    if (inside_) {
      EXPECT_EQ(::setns(outside_, CLONE_NEWNET), 0);
    }
    if (outside_ >= 0) ::close(outside_);
  }
  PrivateNetwork(const PrivateNetwork&) = delete;
  PrivateNetwork& operator=(const PrivateNetwork&) = delete;

  bool usable() const { return usable_; }

 private:
  static bool raise_loopback() {
    const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    const bool up = ::ioctl(fd, SIOCSIFFLAGS, &request) == 0;
    ::close(fd);
    return up;
  }
  // ip-sysctl: 1 client, 2 server, 0x400 every listener without asking.
  static bool switch_on_fast_open() {
    const int fd = ::open("/proc/sys/net/ipv4/tcp_fastopen", O_WRONLY | O_CLOEXEC);
    const bool written = fd >= 0 && ::write(fd, "1027", 4) == 4;
    if (fd >= 0) ::close(fd);
    return written;
  }

  int outside_;
  bool inside_ = false;
  bool usable_ = false;
};

class ReactorFastOpen : public ReactorDialOptions {
 protected:
  void SetUp() override {
    network_ = std::make_unique<PrivateNetwork>();
    ReactorDialOptions::SetUp();
    if (!network_->usable()) GTEST_SKIP() << "no network namespace with TCP Fast Open: not root, or an old kernel";
  }
  void TearDown() override {
    ReactorDialOptions::TearDown();
    network_.reset();
  }

  // The first connection to a server is an ordinary one, and brings the cookie.
  void fetch_cookie(const PlainListener& listener) {
    Life* const life = host->dial(listener.address, DialOptions{.fast_open = true});
    ASSERT_NE(life, nullptr);
    expect_alive(*life, listener);
  }

  // The next connection brings `bytes` and a FIN; what it is answered arrives, unless its end was asked for.
  void expect_heard(Life& life, PlainListener& listener, std::string_view bytes) {
    std::unique_ptr<Peer> peer;
    ASSERT_TRUE(turn_until([&] {
      if (peer == nullptr) peer = listener.accept();
      return peer != nullptr || life.closed != 0;
    }));
    ASSERT_NE(peer, nullptr) << "closed with " << std::strerror(life.closed_errno);
    receive_until_end(*peer);
    EXPECT_EQ(peer->received, bytes);
    EXPECT_EQ(peer->error, 0);
    peer->send("answer");
    peer->close();
    turn_until([&] { return life.closed != 0; });
    EXPECT_EQ(life.closed_errno, 0);
    EXPECT_EQ(life.received, life.closing ? "" : "answer");
  }

  std::unique_ptr<PrivateNetwork> network_;
};

TEST_F(ReactorFastOpen, WithACookieItStandsAtOnceAndTheFirstBytesTravelWithTheSyn) {
  PlainListener listener(local_address());
  fetch_cookie(listener);
  Life* const life = host->dial(listener.address, DialOptions{.fast_open = true});
  ASSERT_NE(life, nullptr);
  turn_until([&] { return life->connected; });
  EXPECT_EQ(listener.accept(), nullptr) << "nothing has been sent";
  expect_alive(*life, listener);
  tcp_info info{};
  socklen_t bytes = sizeof info;
  ASSERT_EQ(::getsockopt(fd_of(*life), IPPROTO_TCP, TCP_INFO, &info, &bytes), 0);
  constexpr int kSynData = 32;  // TCPI_OPT_SYN_DATA: the SYN's bytes were acknowledged
  EXPECT_NE(info.tcpi_options & kSynData, 0);
}

TEST_F(ReactorFastOpen, BytesThatWereWrittenWhileDialingGoWithTheSynToo) {
  PlainListener listener(local_address());
  fetch_cookie(listener);
  Life* const life = host->dial(listener.address, DialOptions{.fast_open = true});
  ASSERT_NE(life, nullptr);
  expect_alive(*life, listener);
}

TEST_F(ReactorFastOpen, AServerThatIsGoneShowsItselfAtTheFirstWrite) {
  SocketAddress gone;
  {
    PlainListener listener(local_address());
    fetch_cookie(listener);
    gone = listener.address;
  }
  Life* const life = host->dial(gone, DialOptions{.fast_open = true});
  ASSERT_NE(life, nullptr);
  host->set_interest(*life, abi::kReadStream);
  turn_until([&] { return life->connected; });
  turns();
  EXPECT_EQ(life->closed, 0);
  host->write(*life, "anybody?");
  turn_until([&] { return life->closed != 0; });
  EXPECT_EQ(life->closed_errno, ECONNREFUSED);
}

TEST_F(ReactorFastOpen, ClosingBeforeAWordWasSaidEndsIt) {
  PlainListener listener(local_address());
  fetch_cookie(listener);
  for (const bool gently : {true, false}) {
    SCOPED_TRACE(gently ? "close" : "abort");
    Life* const life = host->dial(listener.address, DialOptions{.fast_open = true});
    ASSERT_NE(life, nullptr);
    turn_until([&] { return life->connected; });
    if (gently) host->close(*life);
    if (!gently) host->abort(*life);
    turn_until([&] { return life->closed != 0; });
  }
}

// A listener that answers no SYN until its queue is read: the handshake stays where the first bytes have begun it.
TEST_F(ReactorFastOpen, AFinThatIsAskedForBeforeTheHandshakeIsOverTakesNothingBack) {
  PlainListener listener(local_address());
  fetch_cookie(listener);
  for (const bool half : {true, false}) {
    SCOPED_TRACE(half ? "closeWrite" : "close");
    PlainListener full(local_address(), 0);
    const Peer first(full.address);
    Life* const life = host->dial(full.address, DialOptions{.fast_open = true});
    ASSERT_NE(life, nullptr);
    host->set_interest(*life, abi::kReadStream);
    turn_until([&] { return life->connected; });
    host->write(*life, "request");
    if (half) host->close_write(*life);
    if (!half) host->close(*life);
    turns();
    ASSERT_NE(full.accept(), nullptr);
    expect_heard(*life, full, "request");
  }
}

TEST_F(ReactorFastOpen, AFinWithoutAWordBeforeItIsHeard) {
  PlainListener listener(local_address());
  fetch_cookie(listener);
  Life* const life = host->dial(listener.address, DialOptions{.fast_open = true});
  ASSERT_NE(life, nullptr);
  host->set_interest(*life, abi::kReadStream);
  host->close_write(*life);
  expect_heard(*life, listener, "");
}

#endif

}  // namespace
}  // namespace edgewire::test
