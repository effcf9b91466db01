// How connections begin: listeners, their pauses and troubles, and dialing.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <string>
#include <vector>

#include "peer.h"

namespace edgewire::test {
namespace {

class ReactorListen : public ReactorTest {
 protected:
  void SetUp() override {
    ReactorTest::SetUp();
    start_with_fake_clock();
    address_ = listen(local_address(), &listener_);
  }

  // Clients that nobody waits for.
  void knock(int count) {
    for (int i = 0; i < count; ++i) clients.push_back(std::make_unique<Peer>(address_));
  }
  bool exists(const std::string& path) {
    struct stat info;
    return ::lstat(path.c_str(), &info) == 0;
  }

  SocketAddress address_;
  int32_t listener_ = -1;
};

TEST_F(ReactorListen, AcceptsABurstLargerThanARound) {
  constexpr int kBurst = static_cast<int>(Reactor::kAcceptsPerRound) * 2 + 20;
  knock(kBurst);
  turn_until([&] { return host->lives.size() == kBurst; });
  EXPECT_EQ(host->metric(abi::kMetricAccepted), kBurst);
  for (const auto& life : host->lives) EXPECT_EQ(life->listener, listener_);
}

TEST_F(ReactorListen, APausedListenerLeavesClientsInTheKernelsQueue) {
  host->push(abi::kCommandListenerAccept, static_cast<uint32_t>(listener_), 0);
  turns();
  knock(3);
  turns();
  EXPECT_TRUE(host->lives.empty());
  host->push(abi::kCommandListenerAccept, static_cast<uint32_t>(listener_), 1);
  turn_until([&] { return host->lives.size() == 3; });
}

TEST_F(ReactorListen, AClosedListenerRefusesAndItsIndexServesTheNext) {
  auto [peer, life] = connect(address_);
  host->push(abi::kCommandListenerClose, static_cast<uint32_t>(listener_));
  host->push(abi::kCommandListenerClose, static_cast<uint32_t>(listener_));
  turns();
  Peer late(address_);
  late.receive();
  EXPECT_EQ(late.error, ECONNREFUSED);
  peer.send("still served");
  turn_until([&] { return life.received == "still served"; });
  int32_t index = -1;
  address_ = listen(local_address(), &index);
  EXPECT_EQ(index, listener_);
  connect(address_);
}

// What was accepted for the old listener is told in the very dispatch in which that is closed and the next one opened.
TEST_F(ReactorListen, OpenedAgainInsideADispatchItGetsNoConnectionOfTheOneBefore) {
  constexpr int kClients = 5;
  int32_t reopened = -1;
  host->handle = [&](Event& event) {
    if (event.type != abi::kCompletionAccepted || reopened >= 0) return;
    host->push(abi::kCommandListenerClose, static_cast<uint32_t>(listener_));
    reactor().flush();
    listen(local_address(), &reopened);
  };
  knock(kClients);
  turn_until([&] { return host->lives.size() == kClients; });
  ASSERT_EQ(host->dispatches, 1) << "they came one by one: the test shows nothing";
  for (const auto& life : host->lives) EXPECT_EQ(life->listener, listener_);
  EXPECT_NE(reopened, listener_);
  int32_t later = -1;
  listen(local_address(), &later);
  EXPECT_EQ(later, listener_) << "outside of a dispatch the index is used again";
}

TEST_F(ReactorListen, AtTheDescriptorLimitItBacksOffTellsAndRecovers) {
  static int accept_errno;
  static int refusals;
  refusals = 0;
  sys.accept = [](int fd, sockaddr* address, socklen_t* length) noexcept {
    if (accept_errno == 0) return real_sys().accept(fd, address, length);
    refusals += 1;
    return -accept_errno;
  };
  std::vector<int> told;
  host->accept_error = [&](int, int error) { told.push_back(error); };
  for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM}) {
    accept_errno = error;
    refusals = 0;
    told.clear();
    // Without a descriptor the reserve is given up for one more try each time.
    const int tries = error == EMFILE || error == ENFILE ? 2 : 1;
    const size_t before = host->lives.size();
    knock(2);
    turn_until([&] { return refusals > 0; });
    turns();
    EXPECT_EQ(told, std::vector<int>{error});
    EXPECT_EQ(refusals, tries) << "it does not spin";
    EXPECT_EQ(reactor().next_turn_ms(), now_ms() + Reactor::kAcceptBackoffMs);
    pass_ms(static_cast<uint64_t>(Reactor::kAcceptBackoffMs) - 1);
    EXPECT_EQ(refusals, tries);
    pass_ms(1);
    EXPECT_EQ(refusals, 2 * tries);
    EXPECT_EQ(reactor().next_turn_ms(), now_ms() + 2 * Reactor::kAcceptBackoffMs) << "doubled";
    for (int i = 0; i < 10; ++i) pass_ms(static_cast<uint64_t>(Reactor::kAcceptBackoffMaxMs));
    EXPECT_EQ(refusals, 12 * tries) << "held to the maximum";
    accept_errno = 0;
    pass_ms(static_cast<uint64_t>(Reactor::kAcceptBackoffMaxMs));
    turn_until([&] { return host->lives.size() == before + 2; });
  }
}

TEST_F(ReactorListen, WithoutADescriptorClientsAreTurnedAwayInsteadOfWaiting) {
  static bool spare;
  static bool limited;
  spare = false;
  limited = true;
  sys.accept = [](int fd, sockaddr* address, socklen_t* length) noexcept {
    if (limited && !spare) return -EMFILE;
    const int accepted = real_sys().accept(fd, address, length);
    if (accepted >= 0) spare = false;
    return accepted;
  };
  sys.close = [](int fd) noexcept {
    spare = true;
    return real_sys().close(fd);
  };
  sys.open_null = []() noexcept {
    spare = false;
    return real_sys().open_null();
  };
  knock(3);
  for (const auto& client : clients) receive_until_end(*client);
  EXPECT_EQ(host->metric(abi::kMetricShed), 3);
  EXPECT_TRUE(host->lives.empty());
  limited = false;
  knock(1);
  turn_until([&] {
    pass_ms(static_cast<uint64_t>(Reactor::kAcceptBackoffMaxMs));
    return host->lives.size() == 1;
  });
}

TEST_F(ReactorListen, AConnectionThatDiedInTheQueueCostsNobodyElse) {
  static std::vector<int> errors;
  errors = {ECONNABORTED, EINTR, EPROTO, EHOSTUNREACH, ENETDOWN};
  sys.accept = [](int fd, sockaddr* address, socklen_t* length) noexcept {
    if (errors.empty()) return real_sys().accept(fd, address, length);
    const int error = errors.back();
    errors.pop_back();
    return -error;
  };
  host->accept_error = [](int, int error) { ADD_FAILURE() << error; };
  knock(3);
  turn_until([&] { return host->lives.size() == 3; });
}

TEST_F(ReactorListen, WithoutMemoryForTheConnectionItBacksOffAndGoesOn) {
  bool refuse = true;
  std::vector<int> told;
  host->refuse_rows = [&] { return refuse; };
  host->accept_error = [&](int, int error) { told.push_back(error); };
  knock(1);
  turn_until([&] { return !told.empty(); });
  EXPECT_EQ(told, std::vector<int>{ENOMEM});
  receive_until_end(*clients[0]);
  refuse = false;
  knock(1);
  turns();
  EXPECT_TRUE(host->lives.empty());
  pass_ms(static_cast<uint64_t>(Reactor::kAcceptBackoffMs));
  turn_until([&] { return host->lives.size() == 1; });
}

TEST_F(ReactorListen, ASocketFileGoesWithItsListenerUnlessItIsAnothers) {
  for (const bool replaced : {false, true}) {
    int32_t index = -1;
    const SocketAddress at = listen(unix_address(), &index);
    const std::string path = path_of(at);
    EXPECT_TRUE(exists(path));
    if (replaced) {
      ::unlink(path.c_str());
      ::close(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    host->push(abi::kCommandListenerClose, static_cast<uint32_t>(index));
    turns();
    EXPECT_EQ(exists(path), replaced);
    ::unlink(path.c_str());
  }
}

TEST_F(ReactorListen, AListenThatFailsLeavesNothingBehind) {
  const size_t before = count_descriptors();
  EXPECT_EQ(reactor().listen(address_, {}), -EADDRINUSE);
  EXPECT_EQ(count_descriptors(), before);

  const SocketAddress at = unix_address();
  refuse_registering();
  EXPECT_EQ(reactor().listen(at, {}), -ENOSPC);
  allow_registering();
  EXPECT_EQ(count_descriptors(), before);
  EXPECT_FALSE(exists(path_of(at))) << "the next listen() would meet EADDRINUSE";
  ::unlink(path_of(at).c_str());
  sys.listen = [](int, int) noexcept { return -EADDRINUSE; };
  EXPECT_EQ(reactor().listen(at, {}), -EADDRINUSE);
  sys.listen = real_sys().listen;
  EXPECT_EQ(count_descriptors(), before);
  EXPECT_FALSE(exists(path_of(at)));
  ::unlink(path_of(at).c_str());
}

TEST_F(ReactorListen, APathComesBackAsItWasAndASocketWithoutOneHasNone) {
  const SocketAddress at = unix_address();
  const PlainListener listener(at);
  EXPECT_EQ(unix_path(listener.address), path_of(at));
  const Peer unnamed(at);
  EXPECT_EQ(unix_path(address_of(unnamed.fd())), "");
  EXPECT_EQ(unix_path(address_), "") << "of another family";
  ::unlink(path_of(at).c_str());
#ifdef __linux__
  SocketAddress abstract;
  const std::string_view name("\0na\0me", 6);
  ASSERT_EQ(address_from_path(name.data(), name.size(), &abstract), 0);
  EXPECT_EQ(unix_path(abstract), name);
#endif
}

TEST_F(ReactorListen, AnInheritedDescriptorIsServedAndStaysTheCallersAfterAnError) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  const SocketAddress any = local_address();
  ASSERT_EQ(::bind(fd, any.get(), any.length), 0);
  const SocketAddress bound = address_of(fd);
  ASSERT_GE(reactor().listen_fd(fd, {}), 0);
  auto [peer, life] = connect(bound);
  peer.send("x");
  turn_until([&] { return life.received == "x"; });

  const int datagram = ::socket(AF_INET, SOCK_DGRAM, 0);
  EXPECT_EQ(reactor().listen_fd(datagram, {}), -EPROTOTYPE);
  EXPECT_EQ(::close(datagram), 0);
}

class ReactorDial : public ReactorTest {
 protected:
  void SetUp() override {
    ReactorTest::SetUp();
    start_with_fake_clock();
  }
};

TEST_F(ReactorDial, ConnectsOverTcpAndUnixSocketsAndCarriesBytes) {
  const SocketAddress path = unix_address();
  {
    PlainListener tcp(local_address());
    PlainListener local(path);
    for (const PlainListener* listener : {&tcp, &local}) {
      Life& life = *host->dial(listener == &tcp ? tcp.address : path);
      host->set_interest(life, abi::kReadStream);
      host->write(life, "early");  // goes out when the connection stands
      turn_until([&] { return life.connected; });
      const int fd = real_sys().accept(listener->fd, nullptr, nullptr);
      ASSERT_GE(fd, 0);
      clients.push_back(std::make_unique<Peer>(fd));
      Peer& peer = *clients.back();
      host->write(life, ", late");
      peer.send("back");
      turn_until([&] {
        peer.receive();
        return peer.received == "early, late" && life.received == "back";
      });
    }
  }
  ::unlink(path_of(path).c_str());
  EXPECT_EQ(host->metric(abi::kMetricDialed), 2);
}

// A server that speaks first: its greeting and the connection itself show in the same look at the poller.
TEST_F(ReactorDial, ConnectedIsToldBeforeAnythingElse) {
  PlainListener listener(local_address());
  for (const bool and_gone : {false, true}) {
    Life& life = *host->dial(listener.address);
    host->set_interest(life, abi::kReadStream);
    const std::unique_ptr<Peer> peer = listener.accept();
    ASSERT_NE(peer, nullptr);
    peer->send("welcome");
    if (and_gone) peer->close();
    turn_until([&] { return life.received == "welcome"; });
    EXPECT_TRUE(life.connected);
    if (and_gone) turn_until([&] { return life.ended; });
  }
}

TEST_F(ReactorDial, ARefusedDialClosesWithTheErrorAndNeverConnects) {
  SocketAddress nobody;
  {
    PlainListener listener(local_address());
    nobody = listener.address;
  }
  Life& life = *host->dial(nobody);
  host->write(life, "for nobody");
  host->write_pinned(life, "for nobody");
  turn_until([&] { return life.closed != 0; });
  EXPECT_FALSE(life.connected);
  EXPECT_EQ(life.closed_errno, ECONNREFUSED);
  EXPECT_EQ(life.closed_op, abi::kOpDial);
}

TEST_F(ReactorDial, AnErrorThatConnectAnswersAtOnceIsTheCallersAndLeavesNothing) {
  const size_t before = count_descriptors();
  int error = 0;
  EXPECT_EQ(host->dial(unix_address(), &error), nullptr);
  EXPECT_EQ(error, -ENOENT);
  PlainListener listener(local_address());
  host->refuse_rows = [] { return true; };
  EXPECT_EQ(host->dial(listener.address, &error), nullptr);
  EXPECT_EQ(error, -ENOMEM);
  host->refuse_rows = nullptr;
  refuse_registering();
  EXPECT_EQ(host->dial(listener.address, &error), nullptr);
  EXPECT_EQ(error, -ENOSPC);
  allow_registering();
  EXPECT_EQ(count_descriptors(), before + 1) << "the listener's";
  EXPECT_EQ(reactor().connections().in_use(), 0u);
}

TEST_F(ReactorDial, KeepAliveIsSetToTheSecond) {
#ifdef __linux__
  constexpr int kKeepAliveDelay = TCP_KEEPIDLE;
#else
  constexpr int kKeepAliveDelay = TCP_KEEPALIVE;
#endif
  const PlainListener plain(local_address());
  Life* const life = host->dial(plain.address);
  ASSERT_NE(life, nullptr);
  turn_until([&] { return life->connected; });
  const int fd = reactor().connections().at(life->index).fd;
  const auto option = [&](int level, int name) {
    int value = -1;
    EXPECT_EQ(sys.getsockopt_int(fd, level, name, &value), 0);
    return value;
  };
  const auto keep_alive = [&](int32_t value) {
    EXPECT_EQ(reactor().set_option(static_cast<int32_t>(life->index), abi::kOptionKeepAlive, value), 0);
  };
  const int system_default = option(IPPROTO_TCP, kKeepAliveDelay);
  EXPECT_EQ(option(SOL_SOCKET, SO_KEEPALIVE), 0);
  keep_alive(-1);
  EXPECT_EQ(option(SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_EQ(option(IPPROTO_TCP, kKeepAliveDelay), system_default);
  for (const int seconds : {1, 2, 90}) {
    keep_alive(seconds);
    EXPECT_EQ(option(SOL_SOCKET, SO_KEEPALIVE), 1);
    EXPECT_EQ(option(IPPROTO_TCP, kKeepAliveDelay), seconds);
  }
  keep_alive(0);
  EXPECT_EQ(option(SOL_SOCKET, SO_KEEPALIVE), 0);
}

class ReactorDialUnanswered : public ReactorDial {
 protected:
  // Dials where the handshake is never seen to end: connect(2) is answered with EINPROGRESS, and nothing comes.
  Life& dial_unanswered() {
    sys.connect = [](int, const sockaddr*, socklen_t) noexcept { return -EINPROGRESS; };
    Life* const life = host->dial(local_address(9));
    sys.connect = real_sys().connect;
    return *life;
  }
};

TEST_F(ReactorDialUnanswered, CloseAndAbortEndTheAttemptAtOnce) {
  for (const bool gently : {true, false}) {
    Life& life = dial_unanswered();
    turns();  // epoll's EPOLLHUP of a socket that was never connected must not count as a connection
    EXPECT_EQ(life.closed, 0);
    EXPECT_FALSE(life.connected);
    host->write_pinned(life, "queued");
    if (gently) host->close(life);
    if (!gently) host->abort(life);
    turns();
    EXPECT_EQ(life.closed, 1);
    EXPECT_EQ(life.closed_op, abi::kOpAbort);
  }
}

TEST_F(ReactorDialUnanswered, ADeadlineFiresWhileDialing) {
  Life& life = dial_unanswered();
  host->set_deadline(life, abi::kRowWriteDeadline, now_ms() + 100);
  turns();
  pass_ms(99);
  EXPECT_TRUE(life.timeouts.empty());
  pass_ms(1);
  EXPECT_EQ(life.timeouts, std::vector<int>{abi::kDeadlineWrite});
}

TEST_F(ReactorDial, AFinThatWasAskedForWhileDialingGoesOutWhenConnected) {
  PlainListener listener(local_address());
  for (const bool with_bytes : {true, false}) {
    SCOPED_TRACE(with_bytes ? "after bytes" : "with nothing queued");
    Life& life = *host->dial(listener.address);
    if (with_bytes) host->write(life, "bytes");
    host->close_write(life);
    reactor().turn(Look::kLater);
    const std::unique_ptr<Peer> peer = listener.accept();
    ASSERT_NE(peer, nullptr);
    turn_until([&] { return life.connected; });
    receive_until_end(*peer);
    EXPECT_EQ(peer->received, with_bytes ? "bytes" : "");
  }
}

TEST_F(ReactorDial, FlushedIsToldWhenADialWithNothingQueuedConnects) {
  PlainListener listener(local_address());
  Life& life = *host->dial(listener.address);
  host->want(life, abi::kFlagWantFlushed);
  host->write(life, "x");
  turn_until([&] { return life.connected; });
  turn_until([&] { return life.flushes == 1; });
}

}  // namespace
}  // namespace edgewire::test
