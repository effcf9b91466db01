// The bounds: the pool's budget, leases, full rings, and fairness.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "peer.h"

namespace edgewire::test {
namespace {

class ReactorBudget : public ReactorTest {
 protected:
  void SetUp() override {
    ReactorTest::SetUp();
    start_with_fake_clock(kSlabBytes);
    address_ = listen();
    host->handle = [this](Event& event) {
      if (event.type == abi::kCompletionData && retain_) host->retain(event.address);
    };
  }

  // Leases everything that `peer` can make the reactor read, until the pool is at its budget.
  void exhaust(Peer& peer) {
    retain_ = true;
    turn_until([&] {
      peer.send(std::string(kChunkBytes, 'f'));
      return host->metric(abi::kMetricStarved) > 0;
    });
    EXPECT_EQ(reactor().pool().available_bytes(), 0u);
  }

  SocketAddress address_;
  bool retain_ = false;
};

TEST_F(ReactorBudget, ReadsPauseAtTheBudgetAndGoOnWhenChunksComeBack) {
  auto [flood, flooding] = connect(address_);
  auto [peer, life] = connect(address_);
  exhaust(flood);
  const std::string sent = pattern(0, 300'000);
  size_t unsent = sent.size();
  unsent -= peer.send(sent);
  turns();
  EXPECT_EQ(reactor().pool().in_use_bytes(), kSlabBytes);
  EXPECT_FALSE(reactor().wants_turn()) << "it would spin";
  retain_ = false;
  while (!host->leases.empty()) {
    host->release(0);
    turns();
  }
  turn_until([&] {
    unsent -= peer.send(std::string_view(sent).substr(sent.size() - unsent));
    return life.received.size() == sent.size();
  });
  EXPECT_TRUE(life.received == sent);
  EXPECT_EQ(flooding.closed, 0);
}

TEST_F(ReactorBudget, OneChunkBackIsEnoughForAllWhoWait) {
  auto [flood, flooding] = connect(address_);
  std::vector<Life*> waiting;
  for (int i = 0; i < 20; ++i) waiting.push_back(&connect(address_).second);
  exhaust(flood);
  host->set_interest(flooding, 0);
  for (size_t i = 1; i < clients.size(); ++i) clients[i]->send("waits");
  turns();
  retain_ = false;
  host->release(host->leases.size() - 1);
  turn_until([&] {
    return std::all_of(waiting.begin(), waiting.end(), [](Life* life) { return life->received == "waits"; });
  });
}

TEST_F(ReactorBudget, AStalledConnectionBeyondTheReserveIsClosedAndNoOther) {
  auto [stalled_peer, stalled] = connect(address_);
  auto [other_peer, other] = connect(address_);
  const std::string piece = pattern(0, 512 * 1024);
  for (int i = 0; i < 100 && stalled.closed == 0; ++i) {
    host->write(stalled, piece);
    host->write(other, "still here,");
    turns();
  }
  EXPECT_EQ(stalled.closed, 1);
  EXPECT_EQ(stalled.closed_errno, ENOBUFS);
  EXPECT_EQ(stalled.closed_op, abi::kOpWrite);
  EXPECT_EQ(host->metric(abi::kMetricEvictions), 1);
  EXPECT_EQ(other.closed, 0);
  other_peer.send("and read");
  turn_until([&] { return other.received == "and read"; });
  EXPECT_EQ(reactor().pool().in_use_bytes(), 0u);
}

TEST_F(ReactorBudget, AtTheReserveTheLargestHolderIsGivenUpAndNobodyElse) {
  auto [first_peer, first] = connect(address_);
  auto [largest_peer, largest] = connect(address_);
  auto [writer_peer, writer] = connect(address_);
  auto [idle_peer, idle] = connect(address_);
  // The kernel's buffers, with memory that is not the pool's; then what each holds of it.
  const std::string kernel = pattern(0, 8 * 1024 * 1024);
  for (Life* life : {&first, &largest, &writer}) host->write_pinned(*life, kernel);
  turns();
  host->write(first, pattern(0, 2 * kChunkBytes));
  host->write(largest, pattern(0, 5 * kChunkBytes));
  turns();
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(largest.closed, 0) << i;
    host->write(writer, pattern(static_cast<uint64_t>(i) * kChunkBytes, kChunkBytes));
    turns();
  }
  host->write(writer, pattern(4 * kChunkBytes, 2 * kChunkBytes));
  turns();
  EXPECT_EQ(largest.closed, 1);
  EXPECT_EQ(largest.closed_errno, ENOBUFS);
  EXPECT_EQ(largest.closed_op, abi::kOpWrite);
  EXPECT_EQ(host->metric(abi::kMetricEvictions), 1);
  EXPECT_TRUE(host->pins.size() == 2) << "its pinned memory has been let go";
  const std::string expected[] = {kernel + pattern(0, 2 * kChunkBytes), kernel + pattern(0, 6 * kChunkBytes)};
  turn_until([&] {
    first_peer.receive();
    writer_peer.receive();
    return first_peer.received.size() >= expected[0].size() && writer_peer.received.size() >= expected[1].size();
  });
  EXPECT_TRUE(first_peer.received == expected[0]);
  EXPECT_TRUE(writer_peer.received == expected[1]);
  idle_peer.send("and read");
  turn_until([&] { return idle.received == "and read"; });
  EXPECT_EQ(first.closed + writer.closed + idle.closed, 0);
}

// What JavaScript reads into again: the kernel takes what it takes, the rest is copied, and nothing is sent from the
// memory afterwards. FakeHost frees it at unpin() and counts how often that is called.
TEST_F(ReactorBudget, MemoryThatIsPinnedBrieflyIsLetGoWithItsBatch) {
  auto [peer, life] = connect(address_);
  std::string expected;
  size_t left_behind = 0;
  for (int i = 0; i < 200 && left_behind < 5; ++i) {
    const std::string piece = pattern(expected.size(), 50'000 + static_cast<size_t>(i) * 100);
    host->write_pinned(life, piece, abi::kPinBriefly);
    if (i % 3 == 0) host->write_pinned(life, piece, abi::kPinBriefly);
    expected += i % 3 == 0 ? piece + piece : piece;
    reactor().flush();
    EXPECT_TRUE(host->pins.empty()) << i;
    if (reactor().connections().at(life.index).out_bytes > 0) left_behind += 1;
  }
  ASSERT_EQ(left_behind, 5u) << "the kernel took everything: the test shows nothing";
  host->want(life, abi::kFlagWantFlushed);
  turn_until([&] {
    peer.receive();
    return peer.received.size() >= expected.size();
  });
  EXPECT_TRUE(peer.received == expected);
  turns();
  EXPECT_EQ(life.flushes, 1);
  EXPECT_EQ(reactor().pool().in_use_bytes(), 0u);
}

TEST_F(ReactorBudget, MemoryThatIsPinnedBrieflyIsLetGoOnceAlsoWhenThePoolHasNoRoomForIt) {
  auto [peer, life] = connect(address_);
  auto [other_peer, other] = connect(address_);
  host->write_pinned(life, pattern(0, 8 * 1024 * 1024));
  turns();
  for (int i = 0; i < 3; ++i) host->write_pinned(life, pattern(0, 2 * kSlabBytes), abi::kPinBriefly);
  host->write(life, "never sent");
  host->write_pinned(other, pattern(0, 100'000), abi::kPinBriefly);
  turns();
  EXPECT_EQ(life.closed, 1);
  EXPECT_EQ(life.closed_errno, ENOBUFS);
  EXPECT_TRUE(host->pins.empty());
  turn_until([&] {
    other_peer.receive();
    return other_peer.received.size() == 100'000;
  });
  EXPECT_EQ(reactor().pool().in_use_bytes(), 0u);
}

TEST_F(ReactorBudget, MemoryThatIsPinnedBrieflyAndThenGoneCostsItsConnectionOnly) {
  for (const bool stalled : {false, true}) {
    SCOPED_TRACE(stalled);
    auto [peer, life] = connect(address_);
    auto [other_peer, other] = connect(address_);
    if (stalled) host->write_pinned(life, pattern(0, 8 * 1024 * 1024));
    turns();
    host->write(life, "good,");
    const uint32_t id = host->write_pinned(life, pattern(0, 40'000), abi::kPinBriefly);
    host->write_pinned(life, pattern(0, 40'000), abi::kPinBriefly);
    host->write_pinned(other, "fine", abi::kPinBriefly);
    host->pins[id].clear();  // JavaScript has transferred it away
    turns();
    EXPECT_EQ(life.closed, 1);
    EXPECT_NE(life.closed_errno, 0);
    EXPECT_EQ(life.closed_op, abi::kOpWrite);
    EXPECT_TRUE(host->pins.empty());
    other_peer.receive();
    EXPECT_EQ(other_peer.received, "fine");
    EXPECT_EQ(other.closed, 0);
  }
}

TEST_F(ReactorBudget, StalledWritersLeaveTheReserveToReaders) {
  auto [stalled_peer, stalled] = connect(address_);
  auto [other_peer, other] = connect(address_);
  host->write(stalled, pattern(0, 16 * 1024));
  // As full as the writer can make it without being closed.
  while (reactor().pool().available_bytes() >= Reactor::kReadReserveBytesMin + kChunkBytes && stalled.closed == 0) {
    host->write(stalled, pattern(0, kChunkBytes));
    turns();
  }
  ASSERT_EQ(stalled.closed, 0);
  const std::string sent = pattern(0, 400'000);
  send_all(other_peer, sent);
  turn_until([&] { return other.received.size() == sent.size(); });
  EXPECT_TRUE(other.received == sent);
  EXPECT_EQ(host->metric(abi::kMetricStarved), 0);
}

TEST_F(ReactorBudget, ARetainedChunkKeepsItsBytesUntilItIsReleased) {
  auto [peer, life] = connect(address_);
  std::vector<uint32_t> addresses;
  std::vector<std::string> contents;
  host->handle = [&](Event& event) {
    if (event.type != abi::kCompletionData) return;
    host->retain(event.address);
    addresses.push_back(event.address);
    contents.emplace_back(event.bytes);
  };
  for (size_t i = 1; i <= 50; ++i) {
    peer.send(pattern(i, i * 10));
    turn_until([&] { return addresses.size() >= i; });
  }
  EXPECT_LE(reactor().pool().in_use_bytes(), 2 * kChunkBytes) << "small leases share chunks";
  for (size_t i = 0; i < addresses.size(); ++i) {
    const auto* const bytes = reinterpret_cast<const char*>(host->at(addresses[i]));
    EXPECT_EQ(std::string(bytes, contents[i].size()), contents[i]);
  }
}

TEST_F(ReactorBudget, AnIdleReactorHoldsNoChunkOnceTheLastLeaseIsReleased) {
  auto [peer, life] = connect(address_);
  retain_ = true;
  peer.send("leased");
  turn_until([&] { return !host->leases.empty(); });
  turns();
  host->release(0);
  turns();
  EXPECT_EQ(reactor().pool().in_use_bytes(), 0u);
}

TEST_F(ReactorBudget, ASlabSpanIsSentThoughItsLeaseEndsInTheSameBatch) {
  auto [stalled_peer, stalled] = connect(address_);
  auto [peer, life] = connect(address_);
  host->write_pinned(stalled, pattern(0, 8 * 1024 * 1024));  // from now on output of `stalled` waits
  turns();
  retain_ = true;
  peer.send("from the slab");
  turn_until([&] { return host->leases.size() == 1; });
  retain_ = false;
  const uint32_t address = host->leases[0] << kChunkBytesLog2;
  const size_t offset = std::string_view(reinterpret_cast<const char*>(host->at(address)), kChunkBytes).find("from");
  ASSERT_NE(offset, std::string_view::npos);
  host->write_slab(life, address + static_cast<uint32_t>(offset), 13);
  host->write_slab(stalled, address + static_cast<uint32_t>(offset), 13);
  host->release(0);
  turns();
  turn_until([&] {
    peer.receive();
    stalled_peer.receive();
    return peer.received.size() >= 13 && stalled_peer.received.size() >= 8 * 1024 * 1024 + 13;
  });
  EXPECT_EQ(peer.received, "from the slab");
  EXPECT_EQ(stalled_peer.received.substr(8 * 1024 * 1024), "from the slab");
  turns();
  EXPECT_EQ(reactor().pool().in_use_bytes(), 0u) << "the queue held the last reference";
}

TEST_F(ReactorBudget, WithoutMemoryForASlabWhatCannotBeQueuedCostsItsConnectionOnly) {
  bool refuse = false;
  host->refuse_slabs = [&] { return refuse; };
  auto [peer, life] = connect(address_);
  auto [other_peer, other] = connect(address_);
  host->write_pinned(life, pattern(0, 8 * 1024 * 1024));
  turns();
  refuse = true;
  host->write(life, "to be queued behind it");
  turns();
  EXPECT_EQ(life.closed, 1);
  EXPECT_EQ(life.closed_errno, ENOBUFS);
  EXPECT_EQ(other.closed, 0);
  host->refuse_slabs = nullptr;
}

TEST_F(ReactorBudget, WithoutMemoryForASlabReadersWaitAndAreServedLater) {
  bool refuse = true;
  host->refuse_slabs = [&] { return refuse; };
  auto [peer, life] = connect(address_);
  peer.send("patience");
  turn_until([&] { return host->metric(abi::kMetricStarved) > 0; });
  EXPECT_EQ(life.received, "");
  refuse = false;
  turn_until([&] { return life.received == "patience"; });
}

class ReactorRounds : public ReactorTest {
 protected:
  void SetUp() override {
    ReactorTest::SetUp();
    start_with_fake_clock();
  }
};

// Four records each for more connections than the ring has quarters: data and three deadlines, all in one instant.
TEST_F(ReactorRounds, MoreCompletionsThanTheRingHoldsAreAllTold) {
  constexpr size_t kConns = 1'400;
  static_assert(kConns * 4 > abi::kCompletionCapacity);
  ASSERT_GE(raise_open_files_limit(), 2 * kConns + 100);
  const SocketAddress at = listen(unix_address());
  for (size_t i = 0; i < kConns; ++i) connect(at);
  for (Life* life : host->all_living()) {
    host->set_deadline(*life, abi::kRowReadDeadline, now_ms() + 100);
    host->set_deadline(*life, abi::kRowWriteDeadline, now_ms() + 100);
    host->set_idle_timeout(*life, 100);
  }
  turns();
  for (const auto& client : clients) client->send("x");
  for (const auto& client : clients) client->shutdown_write();
  uint32_t largest = 0;
  host->after_dispatch = [&] { largest = std::max(largest, host->dispatch_records); };
  pass_ms(100);
  turns();
  EXPECT_LE(largest, uint32_t{abi::kCompletionCapacity});
  EXPECT_GT(largest, uint32_t{abi::kCompletionCapacity} / 2) << "the ring was not filled: the test shows nothing";
  for (const auto& life : host->lives) {
    EXPECT_EQ(life->received, "x");
    EXPECT_TRUE(life->ended);
    // Reading its byte may have come before the idle timeout was looked at.
    EXPECT_EQ(std::count(life->timeouts.begin(), life->timeouts.end(), abi::kDeadlineRead), 1);
    EXPECT_EQ(std::count(life->timeouts.begin(), life->timeouts.end(), abi::kDeadlineWrite), 1);
  }
  for (Life* life : host->all_living()) host->close(*life);
  turn_until([&] { return host->living_count() == 0; });
}

TEST_F(ReactorRounds, AFloodDelaysAPingByAFewRoundsAtMost) {
  constexpr size_t kFloods = 6;
  // What comes before the ping: each flood once, two of which fill a round's read budget.
  constexpr int kRoundsMax = kFloods / (Reactor::kReadBytesPerRound / Reactor::kReadBytesPerConn) + 1;
  const SocketAddress at = listen();
  host->keep_bytes = false;
  for (size_t i = 0; i < kFloods; ++i) {
    connect(at);
    clients.back()->set_buffer(SO_SNDBUF, 4 * 1024 * 1024);
    ASSERT_EQ(reactor().set_option(static_cast<int32_t>(host->lives.back()->index), abi::kOptionReceiveBuffer,
                                   4 * 1024 * 1024),
              0);
  }
  auto [ping, pinged] = connect(at);
  const std::string flood(1024 * 1024, 'f');
  int seen_at = 0;
  host->handle = [&](Event& event) {
    if (&event.life == &pinged && event.type == abi::kCompletionData) seen_at = host->dispatches;
    if (&event.life != &pinged && event.type == abi::kCompletionData) {
      for (size_t i = 0; i < kFloods; ++i) clients[i]->send(flood);
    }
  };
  for (int round = 0; round < 30; ++round) {
    for (size_t i = 0; i < kFloods; ++i) clients[i]->send(flood);
    reactor().turn(Look::kAlways);
    ping.send("!");
    const int sent_at = host->dispatches;
    seen_at = 0;
    turn_until([&] { return seen_at != 0; });
    EXPECT_LE(seen_at - sent_at, kRoundsMax);
  }
}

TEST_F(ReactorRounds, ATurnEndsThoughTheFloodDoesNot) {
  const SocketAddress at = listen();
  host->keep_bytes = false;
  auto [peer, life] = connect(at);
  const std::string flood(256 * 1024, 'f');
  uint64_t in_turn = 0;
  host->handle = [&](Event& event) {
    in_turn += event.bytes.size();
    for (int i = 0; i < 4; ++i) peer.send(flood);
  };
  for (int i = 0; i < 4; ++i) peer.send(flood);
  for (int turn = 0; turn < 20; ++turn) {
    in_turn = 0;
    reactor().turn(Look::kAlways);
    EXPECT_LE(in_turn, uint64_t{Reactor::kRoundsPerTurn} * (Reactor::kReadBytesPerRound + kChunkBytes));
  }
}

// 32 connections have 64 KiB each: eight rounds.
TEST_F(ReactorRounds, WhileRoundsAreFullThePollerIsLookedAtOnceInFour) {
  constexpr size_t kClients = 32;
  const SocketAddress at = listen();
  host->keep_bytes = false;
  for (size_t i = 0; i < kClients; ++i) connect(at);
  const std::string message(kChunkBytes, 'm');
  for (const auto& client : clients) client->send(message);
  uint64_t bytes = 0;
  host->handle = [&](Event& event) { bytes += event.bytes.size(); };
  const int dispatches_before = host->dispatches;
  const double polls_before = host->metric(abi::kMetricPolls);
  reactor().turn(Look::kAlways);
  EXPECT_EQ(bytes, kClients * message.size());
  const int rounds = host->dispatches - dispatches_before;
  EXPECT_GE(rounds, 8);
  // The last rounds look again: nothing is left over, and whether more has come is what ends the turn.
  EXPECT_LE(host->metric(abi::kMetricPolls) - polls_before, rounds / Reactor::kRoundsPerLook + 3);
}

}  // namespace
}  // namespace edgewire::test
