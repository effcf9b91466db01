// The poller's contract (native/core/poller.h), whichever queue is behind it.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "core/poller.h"
#include "pair.h"

namespace edgewire::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint64_t kToken = 0xFEDC'BA98'7654'3210;  // every bit of it comes back
constexpr int kQuietMs = 30;                        // what has not come by then does not come

class PollerTest : public testing::Test {
 protected:
  void SetUp() override {
    sys = real_sys();
    ASSERT_EQ(poller_.open(), 0);
  }
  void TearDown() override { sys = real_sys(); }

  // What is told of `token` until all of `wanted` has been; less when it does not come.
  uint8_t await(uint8_t wanted, uint64_t token = kToken) {
    uint8_t told = 0;
    const auto limit = Clock::now() + milliseconds(kArrivalMs);
    while ((told & wanted) != wanted && Clock::now() < limit) {
      told |= look(100)[token];
    }
    return told;
  }
  // What comes of `token` while nobody does anything.
  uint8_t settle(uint64_t token = kToken) {
    uint8_t told = 0;
    for (std::map<uint64_t, uint8_t> seen; !(seen = look(kQuietMs)).empty();) told |= seen[token];
    return told;
  }
  std::map<uint64_t, uint8_t> look(int timeout_ms, int capacity = Poller::kEventsPerWait) {
    PollEvent events[Poller::kEventsPerWait];
    const int count = poller_.wait(events, capacity, timeout_ms);
    EXPECT_GE(count, 0);
    EXPECT_LE(count, capacity);
    std::map<uint64_t, uint8_t> seen;
    for (int i = 0; i < count; ++i) seen[events[i].token] |= events[i].ready;
    return seen;
  }
  // A kqueue has none: the driver that sets it does not run there.
  bool has_alarm() {
    const int error = poller_.set_alarm(60'000);
    if (error != 0) {
      EXPECT_EQ(error, -ENOSYS);
    }
    return error == 0;
  }
  static milliseconds time(const auto& work) {
    const auto start = Clock::now();
    work();
    return std::chrono::duration_cast<milliseconds>(Clock::now() - start);
  }

  Poller poller_;
};

TEST_F(PollerTest, WhatIsReadyBeforeAddIsReported) {
  Pair pair;
  pair.peer->send("early");
  ASSERT_TRUE(wait_readable(pair.fd));
  ASSERT_EQ(poller_.add(pair.fd, kToken), 0);
  EXPECT_EQ(await(kReadable | kWritable), kReadable | kWritable);
}

TEST_F(PollerTest, AListenerIsReadableWhileSomebodyWaits) {
  PlainListener listener(local_address());
  ASSERT_EQ(poller_.add(listener.fd, kToken), 0);
  EXPECT_EQ(settle(), 0);
  for (int i = 0; i < 3; ++i) {
    const Peer client(listener.address);
    EXPECT_EQ(await(kReadable) & (kReadable | kBroken), kReadable);
    EXPECT_NE(listener.accept(), nullptr);
    EXPECT_EQ(settle(), 0);
  }
}

TEST_F(PollerTest, EachArrivalIsAnEdgeOfItsOwn) {
  Pair pair;
  ASSERT_EQ(poller_.add(pair.fd, kToken), 0);
  EXPECT_EQ(settle(), kWritable);
  for (int i = 0; i < 3; ++i) {
    pair.peer->send("bytes");
    EXPECT_EQ(await(kReadable) & (kReadable | kHangup), kReadable);
    EXPECT_EQ(settle() & kReadable, 0) << "told once, though they are still there";
    pair.peer->send("more");
    EXPECT_EQ(await(kReadable) & kReadable, kReadable) << "though nobody has read the first";
    EXPECT_EQ(pair.receive(), "bytesmore");
    EXPECT_EQ(settle() & kReadable, 0);
  }
}

TEST_F(PollerTest, AnotherQueueIsToldOfAsLongAsItIsReadableAndIsNoEvent) {
  Poller other;
  ASSERT_EQ(other.open(), 0);
  Pair pair;
  ASSERT_EQ(other.add(pair.fd, 1), 0);
  PollEvent events[8];
  while (other.wait(events, 8, kQuietMs) > 0) continue;
  ASSERT_EQ(poller_.add_other_queue(other.fd()), 0);
  EXPECT_TRUE(look(0).empty());
  EXPECT_FALSE(poller_.other_queue_ready());
  pair.peer->send("bytes");
  ASSERT_TRUE(wait_readable(pair.fd));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(look(kArrivalMs).empty());
    EXPECT_TRUE(poller_.other_queue_ready()) << "look " << i;
  }
  // Beside events of our own it is told as well, and does not hide them.
  Pair own;
  ASSERT_EQ(poller_.add(own.fd, kToken), 0);
  EXPECT_EQ(look(kArrivalMs).count(kToken), 1u);
  EXPECT_TRUE(poller_.other_queue_ready());
  EXPECT_EQ(other.wait(events, 8, 0), 1);
  EXPECT_TRUE(look(kQuietMs).empty());
  EXPECT_FALSE(poller_.other_queue_ready()) << "somebody has served it";
  pair.peer->send("more");
  ASSERT_TRUE(wait_readable(pair.fd));
  ASSERT_EQ(poller_.remove(other.fd()), 0);
  EXPECT_TRUE(look(kQuietMs).empty());
  EXPECT_FALSE(poller_.other_queue_ready());
}

TEST_F(PollerTest, RoomToWriteIsToldWhenThePeerHasMadeIt) {
  constexpr int kFillsMax = 100;
  Pair pair;
  ASSERT_EQ(poller_.add(pair.fd, kToken), 0);
  for (int i = 0; i < 3; ++i) {
    // The kernel may still move bytes on to the peer, which makes room: full is what stays full.
    ssize_t more = 0;
    for (int fills = 0; fills < kFillsMax && more != -EAGAIN; ++fills) {
      pair.fill();
      settle();
      more = real_sys().send(pair.fd, "x", 1);
    }
    ASSERT_EQ(more, -EAGAIN);
    std::thread reader([&] {
      while (wait_readable(pair.peer->fd(), kQuietMs)) pair.peer->receive();
    });
    EXPECT_EQ(await(kWritable) & kWritable, kWritable);
    reader.join();
    settle();
  }
}

TEST_F(PollerTest, ThePeersFinIsAHangupAndHidesNoByteBeforeIt) {
  for (const bool local : {false, true}) {
    SCOPED_TRACE(local ? "unix" : "tcp");
    SocketAddress path;
    ASSERT_EQ(address_from_path("/tmp/edgewire-poller-test", 25, &path), 0);
    Pair pair(local ? path : local_address());
    ::unlink("/tmp/edgewire-poller-test");
    ASSERT_EQ(poller_.add(pair.fd, kToken), 0);
    settle();
    pair.peer->send("last words");
    pair.peer->shutdown_write();
    EXPECT_EQ(await(kReadable | kHangup) & (kReadable | kHangup | kBroken), kReadable | kHangup);
    EXPECT_EQ(pair.receive(4), "last");
    EXPECT_EQ(pair.receive(), " words");
    EXPECT_EQ(real_sys().recv(pair.fd, nullptr, 0), 0);
  }
}

// EVFILT_WRITE reports it like the peer's going, epoll not at all.
TEST_F(PollerTest, OurOwnFinIsNeitherAHangupNorBroken) {
  Pair pair;
  ASSERT_EQ(poller_.add(pair.fd, kToken), 0);
  settle();
  ASSERT_EQ(real_sys().shutdown_write(pair.fd), 0);
  EXPECT_EQ(settle() & (kHangup | kBroken | kReadable), 0);
  pair.peer->send("answer");
  EXPECT_EQ(await(kReadable) & (kReadable | kHangup | kBroken), kReadable);
}

TEST_F(PollerTest, AResetIsBrokenAndItsErrorStaysForWhoAsks) {
  Pair pair;
  ASSERT_EQ(poller_.add(pair.fd, kToken), 0);
  settle();
  pair.peer->reset();
  constexpr uint8_t kAll = kReadable | kWritable | kHangup | kBroken;
  EXPECT_EQ(await(kAll), kAll);
  int error = 0;
  EXPECT_EQ(real_sys().getsockopt_int(pair.fd, SOL_SOCKET, SO_ERROR, &error), 0);
  EXPECT_EQ(error, ECONNRESET);
}

TEST_F(PollerTest, ADialIsWritableWhenItStandsAndBrokenWhenItWasRefused) {
  auto listener = std::make_unique<PlainListener>(local_address());
  const SocketAddress address = listener->address;
  {
    const Peer dialed(address);
    ASSERT_EQ(poller_.add(dialed.fd(), kToken), 0);
    EXPECT_EQ(await(kWritable) & (kWritable | kBroken | kHangup), kWritable);
  }
  listener.reset();
  const int fd = real_sys().socket(AF_INET, SOCK_STREAM);
  const int result = real_sys().connect(fd, address.get(), address.length);
  ASSERT_TRUE(result == -EINPROGRESS || result == -ECONNREFUSED) << result;
  if (result == -EINPROGRESS) {
    ASSERT_EQ(poller_.add(fd, kToken), 0);
    EXPECT_EQ(await(kBroken | kWritable) & (kBroken | kWritable), kBroken | kWritable);
    int error = 0;
    EXPECT_EQ(real_sys().getsockopt_int(fd, SOL_SOCKET, SO_ERROR, &error), 0);
    EXPECT_EQ(error, ECONNREFUSED);
  }
  ::close(fd);
}

TEST_F(PollerTest, UrgentDataIsTold) {
  Pair pair;
  ASSERT_EQ(poller_.add(pair.fd, kToken), 0);
  settle();
  ASSERT_EQ(::send(pair.peer->fd(), "!", 1, MSG_OOB | kNoSignal), 1);
  EXPECT_EQ(await(kUrgent | kReadable) & (kUrgent | kReadable | kHangup | kBroken), kUrgent | kReadable);
}

TEST_F(PollerTest, RemoveSilencesADescriptorThatStaysOpen) {
  Pair pair;
  ASSERT_EQ(poller_.add(pair.fd, kToken), 0);
  settle();
  pair.peer->send("unseen");
  EXPECT_EQ(poller_.remove(pair.fd), 0);
  pair.peer->send("unseen");
  EXPECT_EQ(settle(), 0);
  EXPECT_LE(poller_.remove(pair.fd), 0) << "harmless";
  ASSERT_EQ(poller_.add(pair.fd, kToken + 1), 0);
  EXPECT_EQ(await(kReadable, kToken + 1) & kReadable, kReadable);
  EXPECT_EQ(settle(), 0) << "the old token is forgotten";
}

TEST_F(PollerTest, ADescriptorThatIsClosedLeavesAndItsNumberIsFree) {
  Pair old;
  ASSERT_EQ(poller_.add(old.fd, kToken), 0);
  settle();
  const int number = old.fd;
  old.close();
  EXPECT_LE(poller_.remove(number), 0) << "harmless";
  Pair fresh;
  fresh.peer->send("bytes");
  old.peer->send("to nobody");
  EXPECT_EQ(settle(), 0);
  ASSERT_EQ(poller_.add(fresh.fd, kToken + 1), 0);
  EXPECT_EQ(await(kReadable, kToken + 1) & (kReadable | kHangup), kReadable);
}

TEST_F(PollerTest, AddOfNothingIsRefused) {
  EXPECT_EQ(poller_.add(-1, kToken), -EBADF);
  EXPECT_EQ(settle(), 0);
}

TEST_F(PollerTest, WhatDoesNotFitComesWithTheNextWait) {
  constexpr int kPairs = 40;
  std::vector<std::unique_ptr<Pair>> pairs;
  for (uint64_t i = 0; i < kPairs; ++i) {
    pairs.push_back(std::make_unique<Pair>());
    pairs.back()->peer->send("x");
    ASSERT_TRUE(wait_readable(pairs.back()->fd));
    ASSERT_EQ(poller_.add(pairs.back()->fd, i), 0);
  }
  std::map<uint64_t, uint8_t> told;
  for (std::map<uint64_t, uint8_t> seen; !(seen = look(kQuietMs, 3)).empty();) {
    for (const auto& [token, ready] : seen) told[token] |= ready;
  }
  EXPECT_EQ(told.size(), size_t{kPairs});
  for (const auto& [token, ready] : told) EXPECT_EQ(ready, kReadable | kWritable) << token;
}

TEST_F(PollerTest, WakeEndsAWaitInAnotherThreadAndIsNoEvent) {
  for (int i = 0; i < 20; ++i) {
    std::thread waker([this] {
      std::this_thread::sleep_for(milliseconds(1));
      EXPECT_EQ(poller_.wake(), 0);
    });
    EXPECT_TRUE(look(-1).empty());
    waker.join();
  }
  EXPECT_GE(time([&] { look(kQuietMs); }), milliseconds(kQuietMs)) << "each was taken";
}

TEST_F(PollerTest, AWakeThatComesFirstIsNotLostAndManyAreOne) {
  for (int i = 0; i < 1'000; ++i) ASSERT_EQ(poller_.wake(), 0);
  EXPECT_TRUE(look(-1).empty());
  EXPECT_GE(time([&] { look(kQuietMs); }), milliseconds(kQuietMs));
}

// That a wait ends late would be seen by how long the tests take: how late is the machine's affair.
TEST_F(PollerTest, NoWaitEndsEarly) {
  look(0);
  EXPECT_GE(time([&] { look(kQuietMs); }), milliseconds(kQuietMs));
  EXPECT_GE(time([&] { look(1'100); }), milliseconds(1'100)) << "more than a second";
}

TEST_F(PollerTest, TheAlarmEndsAWaitOnceAndIsNoEvent) {
  if (!has_alarm()) return;
  for (int ms : {1, 2, 1'100}) {
    ASSERT_EQ(poller_.set_alarm(ms), 0);
    EXPECT_FALSE(poller_.take_alarm()) << "set, and not rung";
    EXPECT_GE(time([&] { EXPECT_TRUE(look(-1).empty()); }), milliseconds(ms));
    EXPECT_TRUE(poller_.take_alarm());
    EXPECT_FALSE(poller_.take_alarm()) << "once";
  }
  EXPECT_GE(time([&] { look(kQuietMs); }), milliseconds(kQuietMs)) << "it has not rung again";
}

TEST_F(PollerTest, AnAlarmIsRememberedUntilItIsTakenAndMovedBySettingItAgain) {
  if (!has_alarm()) return;
  ASSERT_EQ(poller_.set_alarm(1), 0);
  EXPECT_TRUE(look(-1).empty());
  look(0);  // another wait does not take it away
  ASSERT_EQ(poller_.wake(), 0);
  look(-1);
  EXPECT_TRUE(poller_.take_alarm());

  ASSERT_EQ(poller_.set_alarm(1), 0);
  std::this_thread::sleep_for(milliseconds(kQuietMs));
  ASSERT_EQ(poller_.set_alarm(60'000), 0);
  EXPECT_GE(time([&] { look(kQuietMs); }), milliseconds(kQuietMs)) << "the first one is forgotten";
  EXPECT_FALSE(poller_.take_alarm());
}

TEST_F(PollerTest, AnAlarmThatCannotBeHadSaysSoAndLeavesNothing) {
  if (!has_alarm()) return;
  const size_t before = count_descriptors();
  Poller other;
  ASSERT_EQ(other.open(), 0);
  const size_t open = count_descriptors();
  sys.timerfd = []() noexcept { return -EMFILE; };
  EXPECT_EQ(other.set_alarm(1), -EMFILE);
  sys = real_sys();
  refuse_registering();
  EXPECT_EQ(other.set_alarm(1), -ENOSPC);
  sys = real_sys();
  EXPECT_EQ(count_descriptors(), open);
  EXPECT_EQ(other.set_alarm(1), 0);
  EXPECT_EQ(other.set_alarm(1), 0);
  EXPECT_EQ(count_descriptors(), open + 1);
  other.close();
  EXPECT_EQ(count_descriptors(), before);
}

TEST_F(PollerTest, ASignalEndsAWaitWithoutEvents) {
  PollEvent event;
  sys.epoll_wait = [](int, epoll_event*, int, int) noexcept { return -EINTR; };
  sys.kevent = [](int, const KqueueEvent*, int, KqueueEvent*, int, const timespec*) noexcept { return -EINTR; };
  EXPECT_EQ(poller_.wait(&event, 1, -1), 0);
}

TEST_F(PollerTest, ItsDescriptorIsReadableWhileSomethingWaitsAndIsNotInherited) {
  EXPECT_NE(::fcntl(poller_.fd(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_FALSE(wait_readable(poller_.fd(), 0));
  Pair pair;
  ASSERT_EQ(poller_.add(pair.fd, kToken), 0);
  EXPECT_TRUE(wait_readable(poller_.fd()));
  settle();
  EXPECT_FALSE(wait_readable(poller_.fd(), 0));
  ASSERT_EQ(poller_.wake(), 0);
  EXPECT_TRUE(wait_readable(poller_.fd()));
}

TEST_F(PollerTest, AnOpenThatFailsLeavesNothingAndCanBeTriedAgain) {
  const size_t before = count_descriptors();
  Poller other;
  sys.epoll_create = sys.kqueue = []() noexcept { return -EMFILE; };
  EXPECT_EQ(other.open(), -EMFILE);
  sys = real_sys();
  sys.eventfd = []() noexcept { return -EMFILE; };
  sys.kevent = [](int, const KqueueEvent*, int, KqueueEvent*, int, const timespec*) noexcept { return -EMFILE; };
  EXPECT_EQ(other.open(), -EMFILE);
  sys = real_sys();
  refuse_registering();
  EXPECT_EQ(other.open(), -ENOSPC);
  sys = real_sys();
  EXPECT_EQ(other.fd(), -1);
  EXPECT_EQ(count_descriptors(), before);
  EXPECT_EQ(other.open(), 0);
  other.close();
  EXPECT_EQ(other.open(), 0) << "and again after a close";
  other.close();
  EXPECT_EQ(count_descriptors(), before);
}

}  // namespace
}  // namespace edgewire::test
