// The waiter's thread: no wake lost, one outstanding, none without a reason.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "core/poller.h"
#include "core/sys.h"
#include "core/waiter.h"

namespace edgewire::test {

uint64_t seed();

namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();

// An event loop that does nothing but wait to be woken.
class WaiterTest : public testing::Test {
 protected:
  void SetUp() override {
    sys = real_sys();
    ASSERT_EQ(poller.open(), 0);
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, woken_), 0);
    for (int fd : woken_) ASSERT_EQ(sys.set_nonblocking(fd), 0);
    ASSERT_EQ(waiter.start(poller, on_wake, this), 0);
  }
  void TearDown() override {
    waiter.stop();
    for (int fd : fds_) ::close(fd);
    for (int fd : woken_) ::close(fd);
    poller.close();
  }

  static void on_wake(void* self) noexcept { EXPECT_EQ(::write(static_cast<WaiterTest*>(self)->woken_[1], "w", 1), 1); }
  // How many wakes have come since the last call; waits for the first of them.
  size_t wakes(int timeout_ms = 10'000) {
    pollfd woken{woken_[0], POLLIN, 0};
    ::poll(&woken, 1, timeout_ms);
    char bytes[4096];
    const ssize_t count = ::read(woken_[0], bytes, sizeof bytes);
    if (count <= 0) return 0;
    all_wakes += static_cast<size_t>(count);
    return static_cast<size_t>(count);
  }
  // A socket that the poller knows by `token`; what its other end is sent makes it ready.
  int add(uint64_t token) {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    for (int fd : pair) EXPECT_EQ(sys.set_nonblocking(fd), 0);
    fds_.insert(fds_.end(), {pair[0], pair[1]});
    EXPECT_EQ(poller.add(pair[0], token), 0);
    return pair[1];
  }
  std::vector<PollEvent> take() {
    int count = -1;
    const PollEvent* events = waiter.take(&count);
    if (events == nullptr) return {PollEvent{kWaiting, 0}};
    return {events, events + count};
  }
  // The edges that add() itself makes are none of the tests' business.
  void settle() {
    PollEvent events[Poller::kEventsPerWait];
    while (poller.wait(events, Poller::kEventsPerWait, 0) > 0) continue;
  }

  static constexpr uint64_t kWaiting = 999;
  Poller poller;
  Waiter waiter;
  size_t all_wakes = 0;   // that wakes() has seen
  std::vector<int> fds_;  // near ends, each with its far end behind it

 private:
  int woken_[2] = {-1, -1};
};

TEST_F(WaiterTest, StartsParkedWithNothingAndWakesNobody) {
  add(1);
  EXPECT_EQ(wakes(20), 0u);
  EXPECT_TRUE(take().empty());
}

TEST_F(WaiterTest, AnEventWakesOnceAndIsTakenOnce) {
  const int far = add(7);
  settle();
  EXPECT_TRUE(waiter.resume(kForever));
  EXPECT_EQ(take().front().token, kWaiting);
  ASSERT_EQ(::write(far, "x", 1), 1);
  EXPECT_EQ(wakes(), 1u);
  const auto batch = take();
  ASSERT_EQ(batch.size(), 1u);
  EXPECT_EQ(batch[0].token, 7u);
  EXPECT_TRUE((batch[0].ready & kReadable) != 0);
  EXPECT_TRUE(take().empty());
  // Parked it does not wait: what comes now wakes nobody, and is found at the next resume().
  ASSERT_EQ(::write(far, "y", 1), 1);
  EXPECT_EQ(wakes(20), 0u);
  EXPECT_TRUE(waiter.resume(kForever));
  EXPECT_EQ(wakes(), 1u);
  EXPECT_EQ(take().size(), 1u);
  EXPECT_EQ(all_wakes, 2u);
}

TEST_F(WaiterTest, ABatchThatNobodyHasTakenIsNotLostByResume) {
  const int far = add(7);
  settle();
  waiter.resume(kForever);
  ASSERT_EQ(::write(far, "x", 1), 1);
  EXPECT_EQ(wakes(), 1u);
  EXPECT_FALSE(waiter.resume(kForever));
  EXPECT_EQ(take().size(), 1u);
  EXPECT_TRUE(waiter.resume(kForever));
}

TEST_F(WaiterTest, TheTimeIsUpWithAnEmptyBatchNotBefore) {
  for (double ms : {0.0, 0.3, 1.0, 7.5, 30.0}) {
    const double until = monotonic_ms() + ms;
    EXPECT_TRUE(waiter.resume(until));
    EXPECT_EQ(wakes(), 1u);
    EXPECT_GE(monotonic_ms(), until);
    EXPECT_TRUE(take().empty());
  }
}

TEST_F(WaiterTest, TheLimitIsBroughtForwardNeverPutOff) {
  EXPECT_TRUE(waiter.resume(kForever));
  EXPECT_TRUE(waiter.resume(monotonic_ms() + 60'000));
  const double until = monotonic_ms() + 10;
  EXPECT_TRUE(waiter.resume(until));
  EXPECT_TRUE(waiter.resume(kForever));
  EXPECT_EQ(wakes(), 1u);
  EXPECT_GE(monotonic_ms(), until);
  EXPECT_EQ(wakes(20), 0u) << "bringing the limit forward is not a wake";
}

TEST_F(WaiterTest, StopEndsItParkedAndWaitingAndItStartsAgain) {
  for (int round = 0; round < 200; round++) {
    if (round % 3 != 0) waiter.resume(round % 3 == 1 ? kForever : monotonic_ms());
    waiter.stop();
    waiter.stop();
    EXPECT_EQ(take().front().token, kWaiting);
    EXPECT_TRUE(waiter.resume(kForever));
    ASSERT_EQ(waiter.start(poller, on_wake, this), 0);
  }
}

// The loop does at random what drivers do, while another thread sends: every byte that was announced to nobody would
// stay in its socket.
TEST_F(WaiterTest, NoEventIsLostWhateverTheLoopDoesMeanwhile) {
  constexpr uint64_t kSockets = 8;
  constexpr int kBytes = 30'000;
  std::vector<int> far;
  std::vector<int> near;
  std::vector<int> got(kSockets);
  for (uint64_t i = 0; i < kSockets; i++) far.push_back(add(i));
  for (size_t i = 0; i < fds_.size(); i += 2) near.push_back(fds_[i]);
  settle();
  std::mt19937_64 random(seed());
  std::thread sender([&, other = std::mt19937_64(seed() + 1)]() mutable {
    for (int i = 0; i < kBytes; i++) {
      const uint64_t to = other() % kSockets;
      while (::write(far[to], "x", 1) < 0 && errno == EAGAIN) std::this_thread::yield();
      if (other() % 64 == 0) std::this_thread::yield();
    }
  });
  const auto serve = [&](const PollEvent* events, int count) {
    for (int i = 0; i < count; i++) {
      char bytes[256];
      ssize_t read;
      while ((read = ::read(near[events[i].token], bytes, sizeof bytes)) > 0)
        got[events[i].token] += static_cast<int>(read);
    }
  };
  int total = 0;
  uint64_t waits = 0;
  while (total < kBytes) {
    int count = 0;
    const PollEvent* events = waiter.take(&count);
    if (events != nullptr) {
      serve(events, count);
      if (random() % 4 == 0) {
        PollEvent more[64];
        serve(more, std::max(0, poller.wait(more, 64, 0)));
      }
    }
    total = 0;
    for (int bytes : got) total += bytes;
    if (total == kBytes) break;
    if (!waiter.resume(random() % 8 == 0 ? monotonic_ms() + 0.01 * static_cast<double>(random() % 100) : kForever))
      continue;
    if (random() % 3 == 0) continue;  // other work came first
    waits++;
    if (wakes() == 0) {
      ADD_FAILURE() << "a wake was lost: " << total << " of " << kBytes;
      break;
    }
  }
  sender.join();
  EXPECT_EQ(total, kBytes);
  while (wakes(0) > 0) continue;
  EXPECT_LE(all_wakes, static_cast<uint64_t>(kBytes) + waits + 1000) << "it spins";
}

}  // namespace
}  // namespace edgewire::test
