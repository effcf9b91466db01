// How connections end, each exactly once (the fixture counts), and what time does to them.
#include <gtest/gtest.h>

#ifdef __linux__
#include <linux/net_tstamp.h>
#endif

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "peer.h"

namespace edgewire::test {
namespace {

constexpr auto kPeerFinWaitMs = static_cast<uint64_t>(Reactor::kPeerFinWaitMs);

class ReactorClose : public ReactorTest {
 protected:
  void SetUp() override {
    ReactorTest::SetUp();
    start_with_fake_clock();
    address_ = listen();
  }

  SocketAddress address_;
};

TEST_F(ReactorClose, CloseSendsWhatIsQueuedThenFinAndWaitsForThePeers) {
  auto [peer, life] = connect(address_);
  const std::string all = pattern(0, 8 * 1024 * 1024);
  host->write(life, all);
  host->close(life);
  receive_until_end(peer);
  EXPECT_EQ(peer.error, 0);
  EXPECT_TRUE(peer.received == all);
  turns();
  EXPECT_EQ(life.closed, 0) << "the peer's FIN has not come";
  peer.close();
  turn_until([&] { return life.closed != 0; });
  EXPECT_EQ(life.closed_errno, 0);
}

TEST_F(ReactorClose, CloseOfAStalledConnectionEndsAtTheLingerDeadline) {
  auto [peer, life] = connect(address_);
  host->write(life, pattern(0, 16 * 1024 * 1024));
  host->close(life, 3'000);
  turns();
  pass_ms(2'999);
  EXPECT_EQ(life.closed, 0);
  pass_ms(1);
  EXPECT_EQ(life.closed, 1);
  EXPECT_EQ(life.closed_errno, ETIMEDOUT);
  EXPECT_EQ(life.closed_op, abi::kOpClose);
  receive_until_end(peer);
  EXPECT_EQ(peer.error, ECONNRESET) << "the peer must not take a part for the whole";
}

TEST_F(ReactorClose, CloseDoesNotWaitForeverForThePeersFin) {
  sys.unsent_bytes = [](int) noexcept { return 1; };  // the FIN: no real time passes to acknowledge it in
  auto [peer, life] = connect(address_);
  host->write(life, "bye");
  host->close(life, 60'000);
  receive_until_end(peer);
  pass_ms(kPeerFinWaitMs - 1);
  EXPECT_EQ(life.closed, 0);
  pass_ms(1);
  EXPECT_EQ(life.closed, 1);
  EXPECT_EQ(life.closed_errno, 0) << "all bytes were sent";
  EXPECT_EQ(peer.received, "bye");
}

TEST_F(ReactorClose, BytesThatThePeersKernelNeverTookMakeTheCloseAnError) {
  sys.unsent_bytes = [](int) noexcept { return 2; };  // one is the FIN
  auto [peer, life] = connect(address_);
  host->write(life, "bye");
  host->close(life, 4'500);
  receive_until_end(peer);
  for (int i = 0; i < 8; ++i) pass_ms(500);
  pass_ms(499);
  EXPECT_EQ(life.closed, 0) << "it waits as long as it was told to";
  pass_ms(1);
  EXPECT_EQ(life.closed, 1);
  EXPECT_EQ(life.closed_errno, ETIMEDOUT);
  EXPECT_EQ(life.closed_op, abi::kOpClose);
}

TEST_F(ReactorClose, OfAUnixSocketNobodyAcknowledgesWhatThePeersQueueHolds) {
  const SocketAddress path = unix_address();
  auto [peer, life] = connect(listen(path));
  host->write(life, "bye");
  host->close(life, 60'000);
  turns();
  pass_ms(kPeerFinWaitMs);
  EXPECT_EQ(life.closed, 1) << "as of a TCP peer that does not close";
  EXPECT_EQ(life.closed_errno, 0);
  receive_until_end(peer);
  EXPECT_EQ(peer.received, "bye");
}

TEST_F(ReactorClose, AHandlerThatRunsForLongCostsItsConnectionNoTime) {
  sys.unsent_bytes = [](int) noexcept { return 2; };
  auto [closing_peer, closing] = connect(address_);
  auto [idle_peer, idle] = connect(address_);
  host->handle = [&, closing = &closing, idle = &idle](Event& event) {
    if (event.type != abi::kCompletionData) return;
    fake_now_ns += 5'000'000'000;
    host->set_idle_timeout(*idle, 3'000);
    host->close(*closing, 4'000);
  };
  closing_peer.send("?");
  turn_until([&] { return closing.closing; });
  turns();
  EXPECT_EQ(closing.closed, 0) << "the linger counts from close()";
  EXPECT_TRUE(idle.timeouts.empty()) << "and the idle timeout from where it was asked for";
  pass_ms(3'999);
  EXPECT_EQ(closing.closed, 0);
  pass_ms(1);
  EXPECT_EQ(closing.closed_errno, ETIMEDOUT);
  EXPECT_EQ(idle.timeouts, std::vector<int>{abi::kDeadlineIdle});
}

TEST_F(ReactorClose, ClosingDiscardsInputSoThatTheLastBytesSurvive) {
  auto [peer, life] = connect(address_);
  host->set_interest(life, 0);
  send_all(peer, pattern(0, 100'000));  // lies unread: closing the descriptor now would send RST
  host->write(life, "answer");
  host->close(life);
  turns();
  send_all(peer, pattern(0, 1'000'000));
  receive_until_end(peer);
  EXPECT_EQ(peer.received, "answer");
  EXPECT_EQ(peer.error, 0);
  peer.shutdown_write();
  turn_until([&] { return life.closed != 0; });
  EXPECT_EQ(life.closed_errno, 0);
  EXPECT_EQ(life.received, "") << "no data after close()";
}

TEST_F(ReactorClose, CloseAfterThePeersFinIsOverWithTheLastByte) {
  auto [peer, life] = connect(address_);
  peer.shutdown_write();
  turn_until([&] { return life.ended; });
  const std::string answer = pattern(0, 4 * 1024 * 1024);
  host->write(life, answer);
  host->close(life);
  receive_until_end(peer);
  EXPECT_TRUE(peer.received == answer);
  turn_until([&] { return life.closed != 0; });
  EXPECT_EQ(life.closed_errno, 0);
}

TEST_F(ReactorClose, AResetWhileClosingWithBytesUnsentIsAnError) {
  auto [peer, life] = connect(address_);
  host->write(life, pattern(0, 16 * 1024 * 1024));
  host->close(life);
  turns();
  peer.reset();
  turn_until([&] { return life.closed != 0; });
  EXPECT_TRUE(life.closed_errno == ECONNRESET || life.closed_errno == EPIPE) << life.closed_errno;
  EXPECT_EQ(life.closed_op, abi::kOpWrite);
}

TEST_F(ReactorClose, AbortSendsRstAndDropsTheQueue) {
  auto [peer, life] = connect(address_);
  host->write(life, pattern(0, 16 * 1024 * 1024));
  turns();
  EXPECT_GT(reactor().pool().in_use_bytes(), 0u);
  host->write_pinned(life, "in the same batch");
  host->abort(life);
  turns();
  EXPECT_EQ(life.closed, 1);
  EXPECT_EQ(life.closed_op, abi::kOpAbort);
  EXPECT_EQ(life.closed_errno, 0);
  EXPECT_EQ(reactor().pool().in_use_bytes(), 0u);
  receive_until_end(peer);
  EXPECT_EQ(peer.error, ECONNRESET);
}

TEST_F(ReactorClose, EveryOrderOfEndingCommandsClosesOnce) {
  const std::vector<int32_t> commands = {abi::kCommandCloseWrite, abi::kCommandClose, abi::kCommandAbort};
  for (const int32_t first : commands) {
    for (const int32_t second : commands) {
      for (const bool apart : {false, true}) {
        auto [peer, life] = connect(address_);
        life.closing = true;
        host->write(life, "x");
        host->push(first, life.index, 1'000);
        if (apart) turns();
        host->push(second, life.index, 1'000);
        host->write(life, "after the end: nobody's");
        turns();
        peer.close();
        turn_until([&] { return life.closed != 0; });
        turns();
        EXPECT_EQ(life.closed, 1);
      }
    }
  }
}

TEST_F(ReactorClose, AnIndexIsReusedOnlyAfterTheAcknowledgement) {
  host->acknowledge = false;
  auto [first_peer, first] = connect(address_);
  host->abort(first);
  turns();
  ASSERT_EQ(first.closed, 1);
  auto [second_peer, second] = connect(address_);
  EXPECT_NE(second.index, first.index);
  // Commands that crossed with the close reach nobody.
  host->write(first, "lost");
  host->write_pinned(first, "lost");
  host->close(first);
  host->push(abi::kCommandRead, first.index);
  turns();
  EXPECT_TRUE(host->pins.empty());
  host->push(abi::kCommandAcknowledge, first.index);
  host->push(abi::kCommandAcknowledge, first.index);
  host->push(abi::kCommandAcknowledge, second.index);
  turns();
  EXPECT_EQ(second.closed, 0) << "acknowledging what is open has no effect";
  auto [third_peer, third] = connect(address_);
  EXPECT_EQ(third.index, first.index);
  third_peer.send("hello");
  turn_until([&] { return third.received == "hello"; });
  third_peer.receive();
  EXPECT_EQ(third_peer.received, "");
}

TEST_F(ReactorClose, ClosingTheReactorClosesEveryDescriptor) {
  listen(unix_address());
  for (int i = 0; i < 5; ++i) {
    Life& life = connect(address_).second;
    if (i == 1) host->write(life, pattern(0, 16 * 1024 * 1024));
    if (i == 2) host->close(life);
    if (i == 3) host->write_pinned(life, "in the ring when the end comes");
    if (i != 3) turns();
  }
  clients[4]->send("unread");
  reactor().close();
  EXPECT_EQ(reactor().pool().in_use_bytes(), 0u);
  EXPECT_EQ(reactor().connections().in_use(), 0u);
  reactor().turn(Look::kAlways);
  reactor().flush();
  for (const auto& client : clients) {
    client->receive();
    EXPECT_TRUE(client->ended || client->error != 0);
  }
  host->pins.clear();  // what was never taken from the ring is the host's to let go
  host.reset();
}

TEST_F(ReactorClose, ADeadlineFiresOnceAtItsTime) {
  auto [peer, life] = connect(address_);
  host->set_deadline(life, abi::kRowReadDeadline, now_ms() + 50.5);
  host->set_deadline(life, abi::kRowWriteDeadline, now_ms() + 20);
  turns();
  EXPECT_LE(reactor().next_turn_ms(), now_ms() + 20);
  pass_ms(19);
  EXPECT_EQ(life.timeouts, std::vector<int>{});
  pass_ms(1);
  EXPECT_EQ(life.timeouts, std::vector<int>{abi::kDeadlineWrite});
  pass_ms(30);
  EXPECT_EQ(life.timeouts.size(), 1u) << "never early";
  pass_ms(1);
  EXPECT_EQ(life.timeouts, (std::vector<int>{abi::kDeadlineWrite, abi::kDeadlineRead}));
  EXPECT_TRUE(std::isinf(reactor().connections().row(life.index)[abi::kRowReadDeadline]));
  pass_ms(100'000);
  EXPECT_EQ(life.timeouts.size(), 2u);
  EXPECT_EQ(life.closed, 0) << "a deadline does not harm the connection";
}

TEST_F(ReactorClose, MovingADeadlineAheadIsAStoreAndBackIsACommand) {
  auto [peer, life] = connect(address_);
  host->set_deadline(life, abi::kRowReadDeadline, now_ms() + 100);
  turns();
  host->set_deadline(life, abi::kRowReadDeadline, now_ms() + 10'000);
  EXPECT_FALSE(reactor().has_commands());
  pass_ms(9'999);
  EXPECT_TRUE(life.timeouts.empty());
  pass_ms(1);
  EXPECT_EQ(life.timeouts.size(), 1u);

  host->set_deadline(life, abi::kRowReadDeadline, now_ms() + 10'000);
  turns();
  host->set_deadline(life, abi::kRowReadDeadline, now_ms() - 1);
  turns();
  EXPECT_EQ(life.timeouts.size(), 2u) << "a time that has passed fires at once";
  host->set_deadline(life, abi::kRowReadDeadline, now_ms() + 100);
  turns();
  host->set_deadline(life, abi::kRowReadDeadline, kNoDeadline);
  pass_ms(1'000);
  EXPECT_EQ(life.timeouts.size(), 2u) << "cleared";
}

TEST_F(ReactorClose, TheIdleTimeoutCountsFromTheLastByte) {
  auto [peer, life] = connect(address_);
  pass_ms(500);
  host->set_idle_timeout(life, 1'000);
  turns();
  pass_ms(900);
  peer.send("in");
  turn_until([&] { return life.received == "in"; });
  pass_ms(900);
  host->write(life, "out");
  turns();
  pass_ms(999);
  EXPECT_TRUE(life.timeouts.empty());
  pass_ms(1);
  EXPECT_EQ(life.timeouts, std::vector<int>{abi::kDeadlineIdle});
  pass_ms(5'000);
  EXPECT_EQ(life.timeouts.size(), 1u) << "once, until it is set again";
}

TEST_F(ReactorClose, ADeadlineOfAnEarlierLifeNeverFiresInTheNext) {
  auto [peer, life] = connect(address_);
  host->set_deadline(life, abi::kRowReadDeadline, now_ms() + 100);
  host->set_idle_timeout(life, 150);
  turns();
  host->abort(life);
  turns();
  auto [next_peer, next] = connect(address_);
  ASSERT_EQ(next.index, life.index);
  pass_ms(1'000);
  EXPECT_TRUE(next.timeouts.empty());
  EXPECT_TRUE(std::isinf(reactor().next_turn_ms()) || reactor().next_turn_ms() > now_ms());
}

// Asked how much can be read, the kernel counts up to the urgent byte only.
TEST_F(ReactorClose, TheEndIsNotToldWhileBytesLieBehindUrgentData) {
  auto [peer, life] = connect(address_);
  host->set_interest(life, 0);
  turns();
  ASSERT_EQ(::send(peer.fd(), "!", 1, MSG_OOB | kNoSignal), 1);
  peer.send("behind");
  peer.shutdown_write();
  turns();  // a kqueue may not tell of the FIN before the urgent byte is read
  EXPECT_FALSE(life.ended);
  host->set_interest(life, abi::kReadStream);
  turn_until([&] { return life.ended; });
  EXPECT_EQ(life.received, "behind");
}

#ifdef __linux__

// A timestamp that waits to be fetched, which an inherited listener may have asked for, is an EPOLLERR as well.
TEST_F(ReactorClose, AnErrorEventWithoutAnErrorEndsNothing) {
  auto [peer, life] = connect(address_);
  host->set_interest(life, 0);
  const int wanted = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
  const int fd = reactor().connections().at(life.index).fd;
  ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &wanted, sizeof wanted), 0);
  host->write(life, "stamped");
  turns();
  peer.receive();
  turns();
  EXPECT_EQ(peer.received, "stamped");
  EXPECT_FALSE(life.ended);
  EXPECT_FALSE(life.hung_up);
  peer.send("alive");
  host->set_interest(life, abi::kReadStream);
  turn_until([&] { return life.received == "alive"; });
}

#endif

TEST_F(ReactorClose, AnErrorThatCannotBeAskedForEndsTheConnection) {
  auto [peer, life] = connect(address_);
  host->set_interest(life, 0);
  sys.getsockopt_int = [](int, int, int, int*) noexcept { return -ENOBUFS; };
  peer.reset();
  turn_until([&] { return life.closed != 0; });
  sys.getsockopt_int = real_sys().getsockopt_int;
  EXPECT_EQ(life.closed_errno, ENOBUFS);
}

}  // namespace
}  // namespace edgewire::test
