// The poller on macOS: see poller.h for the contract, and kqueue(2) for the rules behind it.
//
// A descriptor has two filters, EVFILT_READ and EVFILT_WRITE, each an edge of its own (EV_CLEAR): so its token may come
// twice in a batch. Both leave the queue by themselves when the descriptor is closed.
#include <sys/event.h>

#include <bit>
#include <cerrno>
#include <ctime>

#include "core/check.h"
#include "core/poller.h"
#include "core/sys.h"

namespace edgewire {
namespace {

constexpr int kFiltersPerFd = 2;
constexpr uintptr_t kWakeIdent = 0;  // EVFILT_USER has identifiers of its own
static_assert(sizeof(void*) == sizeof(uint64_t), "a token travels in udata");

// Changes are answered one by one in the event list (EV_RECEIPT), and take no event from the queue.
constexpr uint16_t kAdd = EV_ADD | EV_CLEAR | EV_RECEIPT;
constexpr uint16_t kDelete = EV_DELETE | EV_RECEIPT;
constexpr timespec kAtOnce{0, 0};

KqueueEvent change(uintptr_t ident, int16_t filter, uint16_t flags, uint32_t fflags, uint64_t token) noexcept {
  KqueueEvent out{};
  out.ident = ident;
  out.filter = filter;
  out.flags = flags;
  out.fflags = fflags;
  out.udata = std::bit_cast<void*>(token);
  return out;
}

// Makes the changes, at most kFiltersPerFd. 0, or the first that failed as -errno; the others are made all the same.
int apply(int queue_fd, const KqueueEvent* changes, int count, int tolerated) noexcept {
  KqueueEvent receipts[kFiltersPerFd];
  int got;
  do got = sys.kevent(queue_fd, changes, count, receipts, count, &kAtOnce);
  while (got == -EINTR);
  if (got < 0) return got;
  for (int i = 0; i < got; i++) {
    int error = static_cast<int>(receipts[i].data);
    if ((receipts[i].flags & EV_ERROR) != 0 && error != 0 && error != tolerated) return -error;
  }
  return 0;
}

// What one filter says:
//   EV_EOF in EVFILT_READ    the peer has sent its FIN; bytes may lie before it
//   EV_EOF in EVFILT_WRITE   nothing can be sent any more: the peer is gone, or we have sent our own FIN. That is no news
//                            of the other direction, so it is not a hangup: a send tells the rest.
//   EV_EOF with fflags       the socket's pending error
//   NOTE_OOB                 urgent data lies ahead. While it does, EV_EOF may be hidden, or be left over next to it.
uint8_t ready_from(const KqueueEvent& event) noexcept {
  bool ended = (event.flags & EV_EOF) != 0;
  if (ended && event.fflags != 0 && event.fflags != NOTE_OOB) return kReadable | kWritable | kHangup | kBroken;
  if (event.filter == EVFILT_WRITE) return kWritable;
  uint8_t ready = kReadable;
  if (ended) ready |= kHangup;
  if ((event.fflags & NOTE_OOB) != 0) ready |= kUrgent;
  return ready;
}

}  // namespace

int Poller::open() noexcept {
  EDGEWIRE_CHECK(fd_ < 0);
  int fd = sys.kqueue();
  if (fd < 0) return fd;
  fd_ = wake_fd_ = fd;  // the queue is woken through itself
  KqueueEvent wake = change(kWakeIdent, EVFILT_USER, kAdd, 0, kWakeToken);
  int error = apply(fd_, &wake, 1, 0);
  if (error < 0) close();
  return error;
}

int Poller::add(int fd, uint64_t token) noexcept {
  uintptr_t ident = static_cast<uintptr_t>(fd);
  // NOTE_OOB makes EVFILT_READ tell of urgent data too (filt_soread_common() in xnu/bsd/kern/uipc_socket.c). The filter
  // that is documented for it, EVFILT_EXCEPT, would cost a third event for all that arrives.
  const KqueueEvent changes[kFiltersPerFd] = {change(ident, EVFILT_READ, kAdd, NOTE_OOB, token),
                                              change(ident, EVFILT_WRITE, kAdd, 0, token)};
  // EPIPE: the peer is gone already, of which the other filter tells (mio's kqueue.rs has met it).
  int error = apply(fd_, changes, kFiltersPerFd, EPIPE);
  if (error < 0) remove(fd);
  return error;
}

int Poller::add_other_queue(int fd) noexcept {
  const KqueueEvent level = change(static_cast<uintptr_t>(fd), EVFILT_READ, EV_ADD | EV_RECEIPT, 0, kOtherQueueToken);
  return apply(fd_, &level, 1, 0);
}

// No driver that runs on a kqueue waits in libuv's place.
int Poller::set_alarm(int) noexcept { return -ENOSYS; }

int Poller::remove(int fd) noexcept {
  uintptr_t ident = static_cast<uintptr_t>(fd);
  const KqueueEvent changes[kFiltersPerFd] = {change(ident, EVFILT_READ, kDelete, 0, 0),
                                              change(ident, EVFILT_WRITE, kDelete, 0, 0)};
  // ENOENT: one of them was never there, or has left with an earlier descriptor of this number.
  return apply(fd_, changes, kFiltersPerFd, ENOENT);
}

int Poller::wait(PollEvent* events, int capacity, int timeout_ms) noexcept {
  KqueueEvent raw[kEventsPerWait];
  if (capacity > kEventsPerWait) capacity = kEventsPerWait;
  other_queue_ready_ = false;
  const timespec limit{timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
  int count = sys.kevent(fd_, nullptr, 0, raw, capacity, timeout_ms < 0 ? nullptr : &limit);
  if (count == -EINTR) return 0;
  if (count < 0) return count;
  int kept = 0;
  for (int i = 0; i < count; i++) {
    if (raw[i].filter == EVFILT_USER) continue;
    uint64_t token = std::bit_cast<uint64_t>(raw[i].udata);
    if (token == kOtherQueueToken) {
      other_queue_ready_ = true;
      continue;
    }
    events[kept++] = PollEvent{token, ready_from(raw[i])};
  }
  return kept;
}

int Poller::wake() noexcept {
  KqueueEvent trigger = change(kWakeIdent, EVFILT_USER, 0, NOTE_TRIGGER, kWakeToken);
  return sys.kevent(wake_fd_, &trigger, 1, nullptr, 0, &kAtOnce);
}

void Poller::close() noexcept {
  if (fd_ >= 0) sys.close(fd_);
  fd_ = wake_fd_ = alarm_fd_ = -1;
}

}  // namespace edgewire
