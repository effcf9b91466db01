// The reactor over real sockets: bytes in, bytes out, and the two ends of a stream. See also reactor_close_test.cc
// (ending, deadlines), reactor_open_test.cc (listening, dialing), reactor_dial_test.cc (the options of a dial),
// reactor_limits_test.cc and reactor_fault_test.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "peer.h"

namespace edgewire::test {
namespace {

class ReactorBytes : public ReactorTest {
 protected:
  void SetUp() override {
    ReactorTest::SetUp();
    start();
    address_ = listen();
  }

  SocketAddress address_;
};

// Each way to write in turn: a copy, the slab's own bytes, a pinned buffer.
void echo(FakeHost& host, Event& event, uint64_t how) {
  if (how % 3 == 0) host.write(event.life, event.bytes);
  if (how % 3 == 1) host.write_slab(event.life, event.address, event.bytes.size());
  if (how % 3 == 2) host.write_pinned(event.life, std::string(event.bytes));
}

TEST_F(ReactorBytes, AnEchoIsByteExact) {
  SCOPED_TRACE("EDGEWIRE_SEED=" + std::to_string(seed()));
  constexpr size_t kBytes = 1024 * 1024;
  std::mt19937_64 random(seed());
  host->keep_bytes = false;
  host->handle = [&](Event& event) {
    if (event.type == abi::kCompletionData) echo(*host, event, random());
    if (event.type == abi::kCompletionEnd) host->close(event.life);
  };
  std::vector<SocketAddress> addresses = {address_, address_, address_, listen(unix_address())};
  std::vector<std::string_view> unsent;
  const std::string sent = pattern(0, kBytes);
  for (const SocketAddress& to : addresses) {
    connect(to);
    unsent.push_back(sent);
  }
  size_t done = 0;
  turn_until([&] {
    for (size_t i = 0; i < clients.size(); ++i) {
      if (clients[i]->ended) continue;
      const size_t piece = 1 + random() % (random() % 4 == 0 ? 200'000 : 3'000);
      unsent[i].remove_prefix(clients[i]->send(unsent[i].substr(0, piece)));
      if (random() % 3 != 0) clients[i]->receive(random() % 100'000);
      if (clients[i]->received.size() == kBytes) clients[i]->shutdown_write();
      if (clients[i]->ended) done += 1;
    }
    return done == clients.size();
  });
  for (const auto& client : clients) EXPECT_TRUE(client->received == sent) << "the echo differs";
  turn_until([&] { return host->living_count() == 0; });
  for (const auto& life : host->lives) EXPECT_EQ(life->closed_errno, 0);
}

TEST_F(ReactorBytes, AfterThePeersFinWeMayStillWrite) {
  auto [peer, life] = connect(address_);
  peer.send("question");
  peer.shutdown_write();
  turn_until([&] { return life.ended; });
  EXPECT_EQ(life.received, "question");
  EXPECT_EQ(life.closed, 0);
  const std::string answer = pattern(0, 3'000'000);
  host->write(life, answer);
  turn_until([&] {
    peer.receive();
    return peer.received.size() == answer.size();
  });
  EXPECT_TRUE(peer.received == answer);
  EXPECT_EQ(life.closed, 0) << "only one direction is over";
  host->close_write(life);
  receive_until_end(peer);
  turn_until([&] { return life.closed != 0; });
  EXPECT_EQ(peer.error, 0);
  EXPECT_EQ(life.closed_errno, 0);
}

TEST_F(ReactorBytes, AfterOurFinThePeerMayStillWrite) {
  auto [peer, life] = connect(address_);
  const std::string request = pattern(0, 2'000'000);
  host->write(life, request);
  host->close_write(life);  // the FIN comes after what is queued
  receive_until_end(peer);
  EXPECT_TRUE(peer.received == request);
  const std::string answer = pattern(5, 500'000);
  send_all(peer, answer);
  turn_until([&] { return life.received.size() == answer.size(); });
  EXPECT_TRUE(life.received == answer);
  EXPECT_FALSE(life.ended);
  peer.shutdown_write();
  turn_until([&] { return life.closed != 0; });
  EXPECT_TRUE(life.ended);
  EXPECT_EQ(life.closed_errno, 0);
}

TEST_F(ReactorBytes, TheEndComesAfterAllDataHoweverItIsRead) {
  const std::string sent = pattern(0, 150'000);
  for (const int32_t interest : {abi::kReadStream, 100'000, 1'000, 65'536}) {
    SCOPED_TRACE(interest);
    host->first_interest = interest;
    host->handle = [&](Event& event) {
      EXPECT_FALSE(event.type == abi::kCompletionEnd && event.life.received.size() < sent.size());
      if (event.type == abi::kCompletionData && interest > 0) host->set_interest(event.life, interest);
    };
    auto [peer, life] = connect(address_);
    send_all(peer, sent);
    peer.shutdown_write();
    turn_until([&] { return life.ended; });
    EXPECT_TRUE(life.received == sent);
  }
}

TEST_F(ReactorBytes, APausedConnectionIsReadAgainWithoutANewEvent) {
  auto [peer, life] = connect(address_);
  host->set_interest(life, 0);
  peer.send("before");
  turn_until(
      [&] { return (reactor().connections().interest(life.index)[abi::kInterestFlags] & abi::kFlagReadable) != 0; });
  turns();
  EXPECT_EQ(life.received, "");
  const double polls = host->metric(abi::kMetricPolls);
  host->set_interest(life, abi::kReadStream);
  EXPECT_TRUE(reactor().has_commands());
  reactor().turn(Look::kLater);
  while (life.received.empty() && reactor().wants_turn()) reactor().turn(Look::kLater);
  EXPECT_EQ(life.received, "before");
  EXPECT_LE(host->metric(abi::kMetricPolls), polls + 2);
  peer.send(", after");
  turn_until([&] { return life.received == "before, after"; });
}

TEST_F(ReactorBytes, AReadOfNBytesNeverDeliversMore) {
  SCOPED_TRACE("EDGEWIRE_SEED=" + std::to_string(seed()));
  std::mt19937_64 random(seed());
  int32_t asked = 10;
  host->first_interest = asked;
  host->handle = [&](Event& event) {
    if (event.type != abi::kCompletionData) return;
    EXPECT_LE(event.bytes.size(), static_cast<size_t>(asked));
    EXPECT_EQ(reactor().connections().interest(event.life.index)[abi::kInterestRead], 0) << "one read only";
    asked = 1 + static_cast<int32_t>(random() % (random() % 2 == 0 ? 20 : 200'000));
    host->set_interest(event.life, asked);
  };
  auto [peer, life] = connect(address_);
  const std::string sent = pattern(0, 1'500'000);
  send_all(peer, sent);
  turn_until([&] { return life.received.size() == sent.size(); });
  EXPECT_TRUE(life.received == sent);
}

TEST_F(ReactorBytes, MessagesThatJustFillAChunkAreReadIntoItAndASecondOne) {
  static int reads_into_two;
  reads_into_two = 0;
  sys.recv_pieces = [](int fd, const iovec* pieces, int count) noexcept {
    reads_into_two += 1;
    return real_sys().recv_pieces(fd, pieces, count);
  };
  auto [peer, life] = connect(address_);
  std::string sent;
  const auto send = [&](size_t bytes) {
    const std::string message = pattern(sent.size(), bytes);
    sent += message;
    for (std::string_view left = message; !left.empty(); turns()) left.remove_prefix(peer.send(left));
    turn_until([&] { return life.received.size() == sent.size(); });
    turns();  // what is left to find out about the socket
  };
  // At first the window may be smaller than a message.
  for (int i = 0; i < 50 && reads_into_two == 0; ++i) send(kChunkBytes);
  ASSERT_GT(reads_into_two, 0);

  // A longer one fills both, as far as the window lets it; a short one asks for one again.
  for (size_t more : {1, 40'000, 65'536, 150'000}) send(kChunkBytes + more);
  send(100);
  const int before = reads_into_two;
  send(100);
  send(5'000);
  EXPECT_EQ(reads_into_two, before);
  EXPECT_TRUE(life.received == sent);
}

TEST_F(ReactorBytes, ThePeersEndIsNoticedThoughNobodyReads) {
  auto [peer, life] = connect(address_);
  host->set_interest(life, 0);
  peer.send("unread");
  peer.shutdown_write();
  turn_until([&] { return life.hung_up; });
  EXPECT_EQ(life.received, "");
  EXPECT_FALSE(life.ended);
  host->set_interest(life, abi::kReadStream);
  turn_until([&] { return life.ended; });
  EXPECT_EQ(life.received, "unread");
}

TEST_F(ReactorBytes, AResetClosesWhetherOrNotSomebodyReads) {
  for (const int32_t interest : {0, abi::kReadStream, 100}) {
    SCOPED_TRACE(interest);
    auto [peer, life] = connect(address_);
    host->set_interest(life, interest);
    turns();
    peer.reset();
    turn_until([&] { return life.closed != 0; });
    EXPECT_EQ(life.closed_errno, ECONNRESET);
    EXPECT_EQ(life.closed_op, abi::kOpRead);
    EXPECT_FALSE(life.ended);
  }
}

// Both sides have sent all they wanted to send at once, and then the peer's process dies.
TEST_F(ReactorBytes, AResetAfterTheEndClosesToo) {
  auto [peer, life] = connect(address_);
  peer.shutdown_write();
  turn_until([&] { return life.ended; });
  peer.reset();
  turn_until([&] { return life.closed != 0; });
  // Linux reports EPIPE for a reset of a half-closed connection.
  EXPECT_TRUE(life.closed_errno == ECONNRESET || life.closed_errno == EPIPE) << life.closed_errno;
}

TEST_F(ReactorBytes, WhatLiesUnreadIsDeliveredAfterARefusedWrite) {
  for (const int32_t interest : {abi::kReadStream, 5}) {
    SCOPED_TRACE(interest);
    host->handle = [&](Event& event) {
      if (event.type == abi::kCompletionData && interest > 0) host->set_interest(event.life, interest);
    };
    auto [peer, life] = connect(address_);
    host->set_interest(life, 0);
    peer.send("last words");
    peer.reset();
    // Before the poller is looked at: the write meets the reset first.
    host->set_interest(life, interest);
    host->write(life, "too late");
    reactor().turn(Look::kLater);
    turn_until([&] { return life.closed != 0; });
    EXPECT_EQ(life.closed_op, abi::kOpWrite);
    EXPECT_TRUE(life.closed_errno == ECONNRESET || life.closed_errno == EPIPE) << life.closed_errno;
    EXPECT_EQ(life.received, "last words");
  }
}

// Five bytes at a time: the end, which has come with the first of them, must wait for the last.
TEST_F(ReactorBytes, AReaderOfAFewBytesAtATimeGetsEverythingBeforeTheEndOrTheReset) {
  host->first_interest = 0;
  host->handle = [&](Event& event) {
    if (event.type == abi::kCompletionData) host->set_interest(event.life, 5);
  };
  for (const bool resets : {true, false}) {
    SCOPED_TRACE(resets);
    auto [peer, life] = connect(address_);
    host->set_interest(life, 5);
    peer.send("last words");
    resets ? peer.reset() : peer.shutdown_write();
    turn_until([&] { return life.closed != 0 || life.ended; });
    EXPECT_EQ(life.received, "last words");
    EXPECT_FALSE(life.hung_up) << "somebody reads";
    EXPECT_EQ(life.ended, !resets);
  }
}

// recv(2) stops at the urgent byte, and what is behind it makes no new edge.
TEST_F(ReactorBytes, UrgentDataHidesNoByteBehindIt) {
  for (const int32_t interest : {abi::kReadStream, 1'000}) {
    SCOPED_TRACE(interest);
    host->handle = [&](Event& event) {
      if (event.type == abi::kCompletionData && interest > 0) host->set_interest(event.life, interest);
    };
    auto [peer, life] = connect(address_);
    host->set_interest(life, interest);
    turns();
    std::string expected;
    for (int i = 0; i < 5; ++i) {
      peer.send("before,");
      ASSERT_EQ(::send(peer.fd(), "!", 1, MSG_OOB | kNoSignal), 1);
      peer.send("behind;");
      expected += "before,behind;";
      ASSERT_TRUE(turn_until([&] { return life.received.size() >= expected.size(); }));
      EXPECT_EQ(life.received, expected);
    }
    peer.shutdown_write();
    turn_until([&] { return life.ended; });
    EXPECT_EQ(life.received, expected) << "the urgent byte itself is not of the stream";
  }
}

// As with urgent data: recv(2) stops behind the bytes that came with a descriptor.
TEST_F(ReactorBytes, BytesBehindADescriptorThatAUnixPeerSentArrive) {
  auto [peer, life] = connect(listen(unix_address()));
  for (int i = 1; i <= 3; ++i) {
    char text[] = "with";
    iovec piece{text, 4};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = peer.fd();
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    ASSERT_EQ(::sendmsg(peer.fd(), &message, kNoSignal), 4);
    peer.send(",behind;");
    ASSERT_TRUE(turn_until([&] { return life.received.size() >= static_cast<size_t>(i) * 12; }));
  }
  EXPECT_EQ(life.received, "with,behind;with,behind;with,behind;");
}

TEST_F(ReactorBytes, DrainIsToldOncePerCrossingAndFlushedWhenAllIsWithTheKernel) {
  auto [peer, life] = connect(address_);
  const std::string much = pattern(0, 16 * 1024 * 1024);
  for (int crossing = 1; crossing <= 3; ++crossing) {
    peer.received.clear();
    host->write(life, much);
    host->want(life, abi::kFlagWantDrain);
    host->want(life, abi::kFlagWantFlushed);
    turns();
    ASSERT_EQ(life.drains, crossing - 1);
    ASSERT_EQ(life.flushes, crossing - 1);
    turn_until([&] {
      peer.receive(1'000'000);
      const uint64_t left = reactor().connections().at(life.index).out_bytes;
      EXPECT_EQ(life.drains == crossing, left <= host->low_water_bytes) << left;
      EXPECT_EQ(life.flushes == crossing, left == 0);
      return left == 0;
    });
    turn_until([&] {
      peer.receive();
      return peer.received.size() == much.size();
    });
    EXPECT_TRUE(peer.received == much);
    EXPECT_EQ(host->sent_bytes(life), much.size() * static_cast<uint64_t>(crossing));
  }
  host->want(life, abi::kFlagWantFlushed);
  host->write(life, "x");
  turns();
  EXPECT_EQ(life.flushes, 4) << "the kernel took it at once";
  EXPECT_EQ(life.drains, 3) << "not asked for";
}

TEST_F(ReactorBytes, WritesOfABatchGoOutInOneCallPerConnection) {
  auto [first_peer, first] = connect(address_);
  auto [second_peer, second] = connect(address_);
  const double flushes = host->metric(abi::kMetricFlushes);
  std::string expected;
  for (int i = 0; i < 20; ++i) {
    host->write(first, std::to_string(i) + ",");
    host->write_pinned(second, std::to_string(i) + ",");
    expected += std::to_string(i) + ",";
  }
  turns();
  EXPECT_EQ(host->metric(abi::kMetricFlushes), flushes + 2);
  first_peer.receive();
  second_peer.receive();
  EXPECT_EQ(first_peer.received, expected);
  EXPECT_EQ(second_peer.received, expected);
}

TEST_F(ReactorBytes, AFlushInTheMiddleOfADispatchSendsAndHarmsNothing) {
  std::array<Peer*, 3> peers{};
  for (Peer*& peer : peers) peer = &connect(address_).first;
  host->handle = [&](Event& event) {
    if (event.type != abi::kCompletionData) return;
    const std::string before(event.bytes);
    host->write_slab(event.life, event.address, event.bytes.size());
    reactor().flush();
    EXPECT_EQ(event.bytes, before) << "lent bytes stay until the handler returns";
    host->write(event.life, "!");
    reactor().flush();
    host->write(event.life, "?");
  };
  for (Peer* peer : peers) peer->send("hello");
  for (Peer* peer : peers) {
    turn_until([&] {
      peer->receive();
      return peer->received.size() >= 7;
    });
    EXPECT_EQ(peer->received, "hello!?");
  }
  EXPECT_GE(host->metric(abi::kMetricMidTurnFlushes), 6);
}

TEST_F(ReactorBytes, AFlushBetweenTurnsKeepsWhatJavaScriptHasNotTakenYet) {
  auto [peer, life] = connect(address_);
  host->records_max = 0;
  const int dispatches = host->dispatches;
  peer.send("hello");
  turn_until([&] { return host->dispatches > dispatches; });
  EXPECT_TRUE(life.received.empty());
  reactor().flush();
  host->records_max = UINT32_MAX;
  turn_until([&] { return !life.received.empty(); });
  EXPECT_EQ(life.received, "hello");
}

TEST_F(ReactorBytes, AFullArenaAndAFullCommandRingLoseNothing) {
  auto [peer, life] = connect(address_);
  const std::string arena = pattern(0, abi::kArenaBytes * 3 + 17);
  const std::string pieces = pattern(arena.size(), abi::kCommandCapacity * 2 + 5);
  host->handle = [&](Event& event) {
    if (event.type != abi::kCompletionData) return;
    host->write(event.life, arena);
    for (const char& piece : pieces) host->write(event.life, std::string_view(&piece, 1));
    host->close_write(event.life);
  };
  peer.send("go");
  receive_until_end(peer);
  EXPECT_TRUE(peer.received == arena + pieces);
}

TEST_F(ReactorBytes, APinnedBufferThatIsGoneCostsItsConnectionOnly) {
  auto [peer, life] = connect(address_);
  auto [other_peer, other] = connect(address_);
  host->write(life, "good,");
  const uint32_t id = host->write_pinned(life, std::string(40'000, 'p'));
  host->write(other, "fine");
  host->pins[id].clear();  // JavaScript has transferred it away
  turn_until([&] { return life.closed != 0; });
  EXPECT_EQ(life.closed_errno, EFAULT);
  EXPECT_EQ(life.closed_op, abi::kOpWrite);
  turn_until([&] {
    other_peer.receive();
    return other_peer.received == "fine";
  });
  EXPECT_EQ(other.closed, 0);
}

}  // namespace
}  // namespace edgewire::test
