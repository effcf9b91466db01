// What native/core/sys.h promises of its sockets on every system; macOS has to be asked in other words for most of it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include "core/listener.h"
#include "pair.h"

namespace edgewire::test {
namespace {

class SysTest : public testing::Test {
 protected:
  void SetUp() override {
    sys = real_sys();
    signals_ = 0;
    std::signal(SIGPIPE, [](int) { signals_ = signals_ + 1; });
  }
  void TearDown() override { std::signal(SIGPIPE, SIG_IGN); }

  static void expect_prepared(int fd) {
    EXPECT_NE(::fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  }
  // Sends until the peer's end is noticed.
  static ssize_t send_until_refused(int fd) {
    ssize_t sent = 0;
    for (int tries = 0; tries < 1'000 && (sent >= 0 || sent == -ECONNRESET); ++tries) {
      sent = real_sys().send(fd, "x", 1);
      if (sent == -ECONNRESET) continue;  // the pending error comes first, once
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return sent;
  }

  static inline volatile std::sig_atomic_t signals_;
};

TEST_F(SysTest, SocketsAreNonBlockingAndCloseOnExec) {
  const Pair pair;
  expect_prepared(pair.fd);
  expect_prepared(pair.peer->fd());
}

TEST_F(SysTest, AWriteToAPeerThatIsGoneIsAnErrorAndNoSignal) {
  for (const bool of_accepted : {true, false}) {
    SCOPED_TRACE(of_accepted ? "accepted" : "dialed");
    const Pair pair;
    const int fd = of_accepted ? pair.fd : pair.peer->fd();
    ASSERT_EQ(::shutdown(fd, SHUT_WR), 0);
    EXPECT_EQ(real_sys().send(fd, "x", 1), -EPIPE);
    const iovec pieces[2] = {{const_cast<char*>("x"), 1}, {const_cast<char*>("y"), 1}};
    EXPECT_EQ(real_sys().send_pieces(fd, pieces, 2), -EPIPE);
    Pair other;
    of_accepted ? other.peer->reset() : other.close();
    EXPECT_EQ(send_until_refused(of_accepted ? other.fd : other.peer->fd()), -EPIPE);
  }
  EXPECT_EQ(signals_, 0);
}

// An inherited descriptor was opened by somebody else: without our flags, and with sockets accepted before.
TEST_F(SysTest, WhatAnInheritedListenerAcceptsIsPreparedToo) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  const SocketAddress any = local_address();
  ASSERT_EQ(::bind(fd, any.get(), any.length), 0);
  ASSERT_EQ(::listen(fd, 8), 0);
  Peer early(address_of(fd));
  ASSERT_EQ(adopt_listener(fd, {}), 0);
  expect_prepared(fd);
  ASSERT_TRUE(wait_readable(fd));
  const int accepted = real_sys().accept(fd, nullptr, nullptr);
  ASSERT_GE(accepted, 0);
  expect_prepared(accepted);
  ASSERT_EQ(::shutdown(accepted, SHUT_WR), 0);
  EXPECT_EQ(real_sys().send(accepted, "x", 1), -EPIPE);
  EXPECT_EQ(signals_, 0);
  ::close(accepted);
  ::close(fd);
}

// setsockopt(2) on macOS refuses a socket that is shut in both directions; its bytes are served all the same.
TEST_F(SysTest, WhoSendsAndClosesBeforeTheAcceptIsStillHeard) {
  SocketAddress path;
  const std::string name = "/tmp/edgewire-sys-" + std::to_string(::getpid());
  ASSERT_EQ(address_from_path(name.data(), name.size(), &path), 0);
  for (const bool local : {false, true}) {
    SCOPED_TRACE(local ? "unix" : "tcp");
    PlainListener listener(local ? path : local_address());
    Peer peer(local ? path : listener.address);
    ASSERT_EQ(peer.send("last words"), 10u);
    peer.close();
    ASSERT_TRUE(wait_readable(listener.fd));
    const std::unique_ptr<Peer> accepted = listener.accept();
    ASSERT_NE(accepted, nullptr);
    ASSERT_TRUE(wait_readable(accepted->fd()));
    accepted->receive();
    EXPECT_EQ(accepted->received, "last words");
    EXPECT_TRUE(accepted->ended);
  }
  ::unlink(name.c_str());
}

// A reset before the accept concerns that one connection: never an error that stops accepting.
TEST_F(SysTest, AResetBeforeTheAcceptIsThatConnectionsOwn) {
  PlainListener listener(local_address());
  Peer peer(listener.address);
  ASSERT_TRUE(wait_readable(listener.fd));
  peer.reset();
  const int accepted = real_sys().accept(listener.fd, nullptr, nullptr);
  EXPECT_TRUE(accepted >= 0 || accepted == -ECONNABORTED || accepted == -EAGAIN) << accepted;
  if (accepted >= 0) ::close(accepted);
}

// on_linger() takes at most one byte for "all but the FIN has been acknowledged".
TEST_F(SysTest, UnsentBytesAreThoseThatThePeersKernelHasNot) {
  Pair pair;
  EXPECT_EQ(real_sys().unsent_bytes(pair.fd), 0);
  pair.fill();
  EXPECT_GT(real_sys().unsent_bytes(pair.fd), 1'000);
  ASSERT_EQ(real_sys().shutdown_write(pair.fd), 0);
  EXPECT_GT(real_sys().unsent_bytes(pair.fd), 1'000);
  for (int tries = 0; tries < 1'000 && real_sys().unsent_bytes(pair.fd) > 1; ++tries) {
    pair.peer->receive();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_LE(real_sys().unsent_bytes(pair.fd), 1);
}

TEST_F(SysTest, DiscardedPagesAreStillThere) {
  std::vector<uint8_t> memory(1 << 20, 7);
  discard_pages(memory.data(), memory.size());
  for (uint8_t& byte : memory) byte = 9;
  EXPECT_EQ(memory[memory.size() / 2], 9);
}

TEST_F(SysTest, TheLimitOfOpenFilesIsNeverLowered) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_GE(raise_open_files_limit(), before.rlim_cur);
  rlimit after{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_GE(after.rlim_cur, before.rlim_cur);
  EXPECT_EQ(raise_open_files_limit(), after.rlim_cur) << "twice is once";
}

TEST_F(SysTest, TheClockRunsForward) {
  const uint64_t start = real_sys().monotonic_ns();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const uint64_t passed = real_sys().monotonic_ns() - start;
  EXPECT_GE(passed, 4'000'000u);
  EXPECT_LT(passed, 5'000'000'000u);
}

}  // namespace
}  // namespace edgewire::test
