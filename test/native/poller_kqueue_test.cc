// What is particular to native/core/poller_kqueue.cc: two filters, of which one may fail.
#include <gtest/gtest.h>
#include <sys/event.h>

#include <bit>
#include <cerrno>

#include "core/poller.h"
#include "pair.h"

namespace edgewire::test {
namespace {

constexpr timespec kAtOnce{0, 0};

class PollerKqueueTest : public testing::Test {
 protected:
  void SetUp() override {
    sys = real_sys();
    ASSERT_EQ(poller_.open(), 0);
    fail_filter = fail_errno = interruptions = 0;
    sys.kevent = [](int queue_fd, const KqueueEvent* changes, int count, KqueueEvent* events, int capacity,
                    const timespec* timeout) noexcept {
      const int got = real_sys().kevent(queue_fd, changes, count, events, capacity, timeout);
      if (count > 0 && interruptions-- > 0) return -EINTR;
      for (int i = 0; i < got && count > 0; ++i) {
        if (changes[i].filter != fail_filter || (changes[i].flags & EV_ADD) == 0) continue;
        KqueueEvent undo = changes[i];
        undo.flags = EV_DELETE;
        real_sys().kevent(queue_fd, &undo, 1, nullptr, 0, &kAtOnce);
        events[i].data = fail_errno;
      }
      return got;
    };
  }
  void TearDown() override { sys = real_sys(); }

  int count_events(int timeout_ms = 50) {
    PollEvent events[8];
    return poller_.wait(events, 8, timeout_ms);
  }

  static inline int fail_filter;
  static inline int fail_errno;
  static inline int interruptions;
  Poller poller_;
};

TEST_F(PollerKqueueTest, OneDescriptorGivesAnEventPerFilterWithOneToken) {
  Pair pair;
  pair.peer->send("x");
  ASSERT_TRUE(wait_readable(pair.fd));
  ASSERT_EQ(poller_.add(pair.fd, 7), 0);
  PollEvent events[8];
  ASSERT_EQ(poller_.wait(events, 8, 0), 2);
  EXPECT_EQ(events[0].token, 7u);
  EXPECT_EQ(events[1].token, 7u);
  EXPECT_EQ(events[0].ready + events[1].ready, kReadable + kWritable);
}

TEST_F(PollerKqueueTest, WhenOneFilterFailsTheOtherIsTakenBack) {
  for (const int filter : {EVFILT_READ, EVFILT_WRITE}) {
    SCOPED_TRACE(filter);
    Pair pair;
    pair.peer->send("x");
    ASSERT_TRUE(wait_readable(pair.fd));
    fail_filter = filter;
    fail_errno = ENOMEM;
    EXPECT_EQ(poller_.add(pair.fd, 7), -ENOMEM);
    EXPECT_EQ(count_events(), 0);
    fail_filter = 0;
    EXPECT_EQ(poller_.add(pair.fd, 8), 0);
    EXPECT_EQ(count_events(), 2);
  }
}

TEST_F(PollerKqueueTest, APeerThatIsGoneAlreadyIsNoFailure) {
  Pair pair;
  pair.peer->send("last words");
  pair.peer->close();
  fail_filter = EVFILT_WRITE;
  fail_errno = EPIPE;
  EXPECT_EQ(poller_.add(pair.fd, 7), 0);
  EXPECT_GE(count_events(), 1) << "the other filter tells of it";
}

TEST_F(PollerKqueueTest, ASignalWhileRegisteringIsNoFailure) {
  Pair pair;
  interruptions = 3;
  EXPECT_EQ(poller_.add(pair.fd, 7), 0);
  EXPECT_EQ(count_events(), 1);
  interruptions = 3;
  EXPECT_EQ(poller_.remove(pair.fd), 0) << "the first attempt has removed it: ENOENT is no failure";
}

// What EVFILT_WRITE says must not be taken for news of the other direction.
TEST_F(PollerKqueueTest, EachFlagMeansWhatTheReactorTakesItFor) {
  struct Case {
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    int ready;
  };
  static const Case* now;
  for (const Case& each : {Case{EVFILT_READ, 0, 0, kReadable},
                           {EVFILT_READ, EV_EOF, 0, kReadable | kHangup},
                           {EVFILT_READ, EV_EOF, ECONNRESET, kReadable | kWritable | kHangup | kBroken},
                           {EVFILT_READ, 0, NOTE_OOB, kReadable | kUrgent},
                           {EVFILT_READ, EV_EOF, NOTE_OOB, kReadable | kHangup | kUrgent},
                           {EVFILT_WRITE, 0, 0, kWritable},
                           {EVFILT_WRITE, EV_EOF, 0, kWritable},
                           {EVFILT_WRITE, EV_EOF, EPIPE, kReadable | kWritable | kHangup | kBroken}}) {
    SCOPED_TRACE(testing::Message() << "filter " << each.filter << " flags " << each.flags << " " << each.fflags);
    now = &each;
    sys.kevent = [](int, const KqueueEvent*, int, KqueueEvent* events, int, const timespec*) noexcept {
      events[0] = {.ident = 1,
                   .filter = now->filter,
                   .flags = static_cast<uint16_t>(now->flags | EV_CLEAR),
                   .fflags = now->fflags,
                   .data = 0,
                   .udata = std::bit_cast<void*>(uint64_t{7})};
      return 1;
    };
    PollEvent event{};
    ASSERT_EQ(poller_.wait(&event, 1, 0), 1);
    EXPECT_EQ(event.token, 7u);
    EXPECT_EQ(event.ready, each.ready);
  }
}

}  // namespace
}  // namespace edgewire::test
