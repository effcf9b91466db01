// What poller_kqueue.cc takes kqueue to do. On macOS this asks the kernel; on Linux it asks the imitation in kqueue.cc,
// and says what it must imitate. The sources are kqueue(2), and xnu/bsd/kern where it says nothing.
#include <gtest/gtest.h>
#include <sys/event.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <vector>

#include "../pair.h"

namespace edgewire::test {
namespace {

using Event = struct kevent;
constexpr timespec kAtOnce{0, 0};
constexpr timespec kQuiet{0, 30'000'000};
constexpr timespec kLong{5, 0};

class KqueueFacts : public testing::Test {
 protected:
  void SetUp() override {
    sys = real_sys();
    queue_ = ::kqueue();
    ASSERT_GE(queue_, 0);
  }
  void TearDown() override { ::close(queue_); }

  static Event event(int ident, int filter, int flags, uint32_t fflags = 0) {
    Event out;
    EV_SET(&out, static_cast<uintptr_t>(ident), static_cast<int16_t>(filter), static_cast<uint16_t>(flags), fflags, 0,
           &tag_);
    return out;
  }
  int change(int ident, int filter, int flags, uint32_t fflags = 0) const {
    const Event wanted = event(ident, filter, flags, fflags);
    return ::kevent(queue_, &wanted, 1, nullptr, 0, &kAtOnce) < 0 ? errno : 0;
  }
  void watch(int fd, int filter, uint32_t fflags = 0) const {
    ASSERT_EQ(change(fd, filter, EV_ADD | EV_CLEAR, fflags), 0);
  }
  std::vector<Event> take(const timespec& timeout = kQuiet) const {
    std::vector<Event> events(16);
    const int count = ::kevent(queue_, nullptr, 0, events.data(), 16, &timeout);
    EXPECT_GE(count, 0);
    events.resize(count < 0 ? 0 : static_cast<size_t>(count));
    return events;
  }
  // The next event whose EV_EOF is as asked for.
  Event await(bool eof) const {
    for (int looks = 0; looks < 100; ++looks) {
      for (const Event& each : take()) {
        if (((each.flags & EV_EOF) != 0) == eof) return each;
      }
    }
    ADD_FAILURE() << "no such event";
    return {};
  }

  static inline int tag_;
  int queue_ = -1;
};

// "A kevent is identified by an (ident, filter, and optional udata value) tuple".
TEST_F(KqueueFacts, OneDescriptorGivesAnEventPerFilter) {
  Pair pair;
  pair.peer->send("abc");
  ASSERT_TRUE(wait_readable(pair.fd));
  watch(pair.fd, EVFILT_READ);
  watch(pair.fd, EVFILT_WRITE);
  const std::vector<Event> events = take();
  ASSERT_EQ(events.size(), 2u);
  for (const Event& each : events) {
    EXPECT_EQ(each.ident, static_cast<uintptr_t>(pair.fd));
    EXPECT_EQ(each.udata, &tag_);
    EXPECT_EQ(each.flags & (EV_EOF | EV_ERROR), 0);
    EXPECT_EQ(each.fflags, 0u);
    // "data contains the number of bytes of protocol data available to read"; "the amount of space remaining".
    if (each.filter == EVFILT_READ) {
      EXPECT_EQ(each.data, 3);
    } else {
      EXPECT_GT(each.data, 1'000);
    }
  }
}

// "After the event is retrieved by the user, its state is reset."
TEST_F(KqueueFacts, EvClearReportsEachArrivalOnceAndWithoutItTheStateIsReported) {
  Pair pair;
  watch(pair.fd, EVFILT_READ);
  EXPECT_TRUE(take().empty());
  for (int i = 1; i <= 3; ++i) {
    pair.peer->send("x");
    EXPECT_EQ(await(false).data, i);
    EXPECT_TRUE(take().empty());
  }
  ASSERT_EQ(change(pair.fd, EVFILT_READ, EV_DELETE), 0);
  ASSERT_EQ(change(pair.fd, EVFILT_READ, EV_ADD), 0);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(take().size(), 1u);
}

// "If the filter indicates that the condition that triggered the event no longer holds, the kevent is removed".
TEST_F(KqueueFacts, WhatWasReadMeanwhileIsNotReported) {
  Pair pair;
  watch(pair.fd, EVFILT_READ);
  pair.peer->send("x");
  ASSERT_TRUE(wait_readable(pair.fd));
  EXPECT_EQ(pair.receive(), "x");
  EXPECT_TRUE(take().empty());
}

// "It is possible for EOF to be returned (indicating the connection is gone) while there is still data pending".
TEST_F(KqueueFacts, EofComesWithBytesStillPendingAndRepeats) {
  Pair pair;
  pair.peer->send("abc");
  pair.peer->shutdown_write();
  watch(pair.fd, EVFILT_READ);
  const Event ended = await(true);
  EXPECT_EQ(ended.data, 3);
  EXPECT_EQ(ended.fflags, 0u) << "no error";
  EXPECT_TRUE(take().empty());
  watch(pair.fd, EVFILT_READ);  // the filter is run again
  EXPECT_EQ(await(true).data, 3);
  EXPECT_EQ(pair.receive(), "abc");
  watch(pair.fd, EVFILT_READ);
  EXPECT_EQ(await(true).data, 0);
}

// "returns the socket error (if any) in fflags", in both filters; and leaves it where it is.
TEST_F(KqueueFacts, AResetIsEofWithTheErrorInBothFilters) {
  Pair pair;
  pair.peer->reset();
  ASSERT_TRUE(wait_readable(pair.fd));
  for (const int filter : {EVFILT_READ, EVFILT_WRITE}) {
    watch(pair.fd, filter);
    const Event ended = await(true);
    EXPECT_EQ(ended.filter, filter);
    EXPECT_EQ(ended.fflags, static_cast<uint32_t>(ECONNRESET));
  }
  int error = 0;
  EXPECT_EQ(real_sys().getsockopt_int(pair.fd, SOL_SOCKET, SO_ERROR, &error), 0);
  EXPECT_EQ(error, ECONNRESET);
}

// SS_CANTSENDMORE in filt_sowrite_common(), xnu/bsd/kern/uipc_socket.c.
TEST_F(KqueueFacts, OurOwnShutdownIsEofOfWritingAndNotOfReading) {
  Pair pair;
  watch(pair.fd, EVFILT_READ);
  watch(pair.fd, EVFILT_WRITE);
  take();
  ASSERT_EQ(::shutdown(pair.fd, SHUT_WR), 0);
  const std::vector<Event> events = take();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].filter, EVFILT_WRITE);
  EXPECT_NE(events[0].flags & EV_EOF, 0);
  EXPECT_EQ(events[0].fflags, 0u);
}

// socanwrite() and filt_soread_common(), there: epoll reports EPOLLHUP for the same socket.
TEST_F(KqueueFacts, ASocketThatWasNeverConnectedIsSilent) {
  const int fd = real_sys().socket(AF_INET, SOCK_STREAM);
  watch(fd, EVFILT_READ);
  watch(fd, EVFILT_WRITE);
  EXPECT_TRUE(take().empty());
  ::close(fd);
}

// "Sockets which have previously been passed to listen() return when there is an incoming connection pending."
TEST_F(KqueueFacts, AListenerIsReadableAndNeverWritable) {
  PlainListener listener(local_address());
  watch(listener.fd, EVFILT_READ);
  watch(listener.fd, EVFILT_WRITE);
  EXPECT_TRUE(take().empty());
  const Peer client(listener.address);
  const Event ready = await(false);
  EXPECT_EQ(ready.filter, EVFILT_READ);
  EXPECT_GE(ready.data, 1);
}

// filt_soread_common(), there; kqueue(2) documents NOTE_OOB for EVFILT_EXCEPT.
TEST_F(KqueueFacts, UrgentDataIsToldByTheReadFilterThatAskedForIt) {
  Pair pair;
  watch(pair.fd, EVFILT_READ, NOTE_OOB);
  ASSERT_EQ(::send(pair.peer->fd(), "!", 1, MSG_OOB | kNoSignal), 1);
  EXPECT_EQ(await(false).fflags, static_cast<uint32_t>(NOTE_OOB));
}

// "When passed as input, it forces EV_ERROR to always be returned."
TEST_F(KqueueFacts, ReceiptsAnswerEachChangeInOrderAndTakeNoEvent) {
  Pair pair;
  watch(pair.fd, EVFILT_WRITE);
  const Event changes[] = {
      event(pair.fd, EVFILT_READ, EV_ADD | EV_CLEAR | EV_RECEIPT), event(-1, EVFILT_READ, EV_ADD | EV_RECEIPT),
      event(pair.fd, EVFILT_READ, EV_DELETE | EV_RECEIPT), event(pair.fd, EVFILT_READ, EV_DELETE | EV_RECEIPT)};
  Event receipts[8];
  ASSERT_EQ(::kevent(queue_, changes, 4, receipts, 8, &kLong), 4);
  const int expected[] = {0, EBADF, 0, ENOENT};
  for (int i = 0; i < 4; ++i) {
    EXPECT_NE(receipts[i].flags & EV_ERROR, 0);
    EXPECT_EQ(receipts[i].data, expected[i]) << i;
  }
  EXPECT_EQ(take().size(), 1u) << "the event that was there all the time";
}

// "If there is not enough space in the eventlist, then -1 will be returned, and errno will indicate the error".
TEST_F(KqueueFacts, AFailedChangeWithoutRoomForItsAnswerFailsTheCall) {
  EXPECT_EQ(change(-1, EVFILT_READ, EV_ADD), EBADF);
  Pair pair;
  EXPECT_EQ(change(pair.fd, EVFILT_WRITE, EV_DELETE), ENOENT);
  EXPECT_EQ(change(1, EVFILT_USER, 0, NOTE_TRIGGER), ENOENT);
  Event none;
  EXPECT_EQ(::kevent(pair.fd, nullptr, 0, &none, 1, &kAtOnce), -1);
  EXPECT_EQ(errno, EBADF) << "not a queue";
}

// "Calling close() on a file descriptor will remove any kevents that reference the descriptor."
TEST_F(KqueueFacts, ClosingRemovesTheFiltersEvenIfTheOpenFileStays) {
  Pair pair;
  watch(pair.fd, EVFILT_READ);
  const int other = ::dup(pair.fd);
  pair.close();
  pair.peer->send("x");
  ASSERT_TRUE(wait_readable(other));
  EXPECT_TRUE(take().empty());
  ::close(other);
}

// EVFILT_USER: a trigger from any thread, several are one, and EV_CLEAR takes it back.
TEST_F(KqueueFacts, AUserEventWakesFromAnotherThread) {
  ASSERT_EQ(change(1, EVFILT_USER, EV_ADD | EV_CLEAR), 0);
  EXPECT_TRUE(take().empty());
  for (int i = 0; i < 3; ++i) {
    std::thread trigger([this] {
      for (int times = 0; times < 3; ++times) EXPECT_EQ(change(1, EVFILT_USER, 0, NOTE_TRIGGER), 0);
    });
    if (i == 2) trigger.join();
    const std::vector<Event> events = take(kLong);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].filter, EVFILT_USER);
    EXPECT_EQ(events[0].ident, 1u);
    if (trigger.joinable()) trigger.join();
    take();  // those that came after the first was taken
  }
  EXPECT_TRUE(take().empty());
}

// "nevents ... determines the size of eventlist": the rest waits.
TEST_F(KqueueFacts, WhatDoesNotFitStays) {
  Pair pairs[5];
  for (const Pair& pair : pairs) {
    pair.peer->send("x");
    ASSERT_TRUE(wait_readable(pair.fd));
    watch(pair.fd, EVFILT_READ);
    watch(pair.fd, EVFILT_WRITE);
  }
  size_t count = 0;
  Event one;
  while (::kevent(queue_, nullptr, 0, &one, 1, &kAtOnce) == 1) count += 1;
  EXPECT_EQ(count, 10u);
}

}  // namespace
}  // namespace edgewire::test
