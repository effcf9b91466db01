// kqueue on top of epoll, for the tests of native/core/poller_kqueue.cc on Linux. It imitates what kqueue(2) says and
// what xnu/bsd/kern does (named where the page is silent), also where that differs from epoll:
//
//   - a filter per direction, each reported by itself; changes are answered one by one in the event list (EV_RECEIPT)
//   - EV_EOF together with bytes that are still to be read, and again with every later event
//   - EVFILT_WRITE reports EV_EOF also after our own shutdown(2), without an error
//   - close(2) removes the descriptor's filters even if another descriptor of the same open file stays
//   - a socket that has never been connected is silent (epoll reports EPOLLHUP)
//
// What it cannot imitate is in docs/macos.md.
//
//                  +-- epoll of the readers
//   the queue's ---+-- epoll of the writers     edge-triggered for EV_CLEAR
//   descriptor     +-- eventfd: EVFILT_USER
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/event.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

namespace {

using Event = struct kevent;
using Clock = std::chrono::steady_clock;

constexpr uint16_t kKnownFlags = EV_ADD | EV_DELETE | EV_CLEAR | EV_RECEIPT;
constexpr int kEventsPerLook = 64;

int close_only(int fd) { return static_cast<int>(::syscall(SYS_close, fd)); }

int option(int fd, int name) {
  int value = 0;
  socklen_t length = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, name, &value, &length) == 0 ? value : 0;
}

int bytes_of(int fd, unsigned long request) {
  int bytes = 0;
  return ::ioctl(fd, request, &bytes) == 0 ? bytes : 0;
}

bool never_connected(int fd, uint32_t bits) {
  if ((bits & EPOLLHUP) == 0 || (bits & (EPOLLRDHUP | EPOLLERR)) != 0) return false;
  sockaddr_storage peer;
  socklen_t length = sizeof peer;
  return ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) < 0 && errno == ENOTCONN;
}

// A filter that waits for its event: what xnu calls a knote.
struct Filter {
  Event event;
  bool active = false;  // of EVFILT_USER: triggered, and not yet taken
};

using Key = std::pair<int16_t, uintptr_t>;  // filter, ident

struct Queue {
  int fd = -1;
  int readers = -1;
  int writers = -1;
  int user = -1;
  uint64_t next_serial = 1;
  std::map<Key, uint64_t> serials;
  std::map<uint64_t, Filter> filters;  // by what epoll carries for it
  bool writers_first = false;          // neither direction starves the other when the event list is short

  int epoll_of(int16_t filter) const { return filter == EVFILT_READ ? readers : writers; }
  bool is_complete() const { return fd >= 0 && readers >= 0 && writers >= 0 && user >= 0; }
  void close_all() const {
    for (int each : {readers, writers, user, fd}) {
      if (each >= 0) close_only(each);
    }
  }
};

struct State {
  std::mutex mutex;
  std::map<int, std::unique_ptr<Queue>> queues;
  std::set<int> shut;  // descriptors whose sending direction was shut down by us
};

// Never destroyed: close() is called until the very end.
State& state() {
  static State* const only = new State;
  return *only;
}

// ---- changes --------------------------------------------------------------------------------------------------------

void forget(Queue& queue, const Key& key) {
  auto found = queue.serials.find(key);
  if (found == queue.serials.end()) return;
  queue.filters.erase(found->second);
  queue.serials.erase(found);
}

uint32_t interest_of(const Event& change) {
  uint32_t bits = change.filter == EVFILT_READ ? EPOLLIN | EPOLLRDHUP : EPOLLOUT;
  if (change.filter == EVFILT_READ && (change.fflags & NOTE_OOB) != 0) bits |= EPOLLPRI;
  return (change.flags & EV_CLEAR) != 0 ? bits | EPOLLET : bits;
}

int change_socket(Queue& queue, const Event& change) {
  const Key key{change.filter, change.ident};
  const int fd = static_cast<int>(change.ident);
  const int epoll = queue.epoll_of(change.filter);
  if (::fcntl(fd, F_GETFD) < 0) return EBADF;
  if ((change.flags & EV_DELETE) != 0) {
    epoll_event unused{};
    if (::epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &unused) < 0) return errno;
    forget(queue, key);
    return 0;
  }
  if ((change.flags & EV_ADD) == 0) return queue.serials.count(key) == 0 ? ENOENT : 0;
  const uint64_t serial = queue.next_serial++;
  epoll_event wanted{};
  wanted.events = interest_of(change);
  wanted.data.u64 = serial;
  int result = ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wanted);
  // Adding it again replaces the conditions.
  if (result < 0 && errno == EEXIST) result = ::epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &wanted);
  if (result < 0) return errno;
  forget(queue, key);
  queue.serials[key] = serial;
  queue.filters[serial].event = change;
  return 0;
}

int change_user(Queue& queue, const Event& change) {
  const Key key{change.filter, change.ident};
  auto found = queue.serials.find(key);
  if (found == queue.serials.end() && (change.flags & EV_ADD) == 0) return ENOENT;
  if ((change.flags & EV_DELETE) != 0) {
    forget(queue, key);
    return 0;
  }
  if (found == queue.serials.end()) {
    found = queue.serials.emplace(key, queue.next_serial++).first;
    queue.filters[found->second].event = change;
  }
  if ((change.fflags & NOTE_TRIGGER) == 0) return 0;
  queue.filters[found->second].active = true;
  const uint64_t one = 1;
  return ::write(queue.user, &one, sizeof one) < 0 ? errno : 0;
}

int make_change(Queue& queue, const Event& change) {
  if ((change.flags & ~kKnownFlags) != 0) return EINVAL;
  switch (change.filter) {
    case EVFILT_READ:
    case EVFILT_WRITE: return change_socket(queue, change);
    case EVFILT_USER: return change_user(queue, change);
    default: return EINVAL;
  }
}

// ---- events ---------------------------------------------------------------------------------------------------------

// What the error is cannot be asked on Linux without taking it from its owner: this stands for any.
uint32_t error_of(uint32_t bits) { return (bits & EPOLLERR) != 0 ? ECONNRESET : 0; }

// filt_soread_common() in xnu/bsd/kern/uipc_socket.c.
bool fill_read(Event& event, uint32_t bits, uint32_t wanted) {
  const int fd = static_cast<int>(event.ident);
  if (option(fd, SO_ACCEPTCONN) != 0) {
    event.data = 1;
    return (bits & EPOLLIN) != 0;
  }
  event.data = bytes_of(fd, FIONREAD);
  if ((wanted & bits & EPOLLPRI) != 0) {
    event.fflags |= NOTE_OOB;
    return true;
  }
  if ((bits & (EPOLLRDHUP | EPOLLHUP)) != 0) {
    event.flags |= EV_EOF;
    event.fflags = error_of(bits);
    return true;
  }
  return (bits & (EPOLLIN | EPOLLERR)) != 0;
}

// filt_sowrite_common(), there.
bool fill_write(Event& event, uint32_t bits) {
  const int fd = static_cast<int>(event.ident);
  event.data = std::max(0, option(fd, SO_SNDBUF) - bytes_of(fd, SIOCOUTQ));
  if ((bits & EPOLLHUP) != 0 || state().shut.count(fd) != 0) {
    event.flags |= EV_EOF;
    event.fflags = error_of(bits);
    return true;
  }
  return (bits & (EPOLLOUT | EPOLLERR)) != 0;
}

int take_from(Queue& queue, int16_t filter, Event* events, int room) {
  epoll_event raw[kEventsPerLook];
  if (room <= 0) return 0;
  const int count = ::epoll_wait(queue.epoll_of(filter), raw, std::min(room, kEventsPerLook), 0);
  int kept = 0;
  for (int i = 0; i < count; ++i) {
    const auto found = queue.filters.find(raw[i].data.u64);
    if (found == queue.filters.end()) continue;
    const Event& asked = found->second.event;
    const uint32_t bits = raw[i].events;
    if (never_connected(static_cast<int>(asked.ident), bits)) continue;
    Event event = asked;
    event.flags = asked.flags & EV_CLEAR;
    event.fflags = 0;
    const bool holds = filter == EVFILT_READ ? fill_read(event, bits, interest_of(asked)) : fill_write(event, bits);
    if (holds) events[kept++] = event;
  }
  return kept;
}

int take_user(Queue& queue, Event* events, int room) {
  int kept = 0;
  bool left = false;
  for (auto& [serial, filter] : queue.filters) {
    if (!filter.active) continue;
    if (kept == room) {
      left = true;
      break;
    }
    events[kept] = filter.event;
    events[kept++].fflags = 0;
    filter.active = (filter.event.flags & EV_CLEAR) == 0;
    left = left || filter.active;
  }
  uint64_t writes;
  if (!left && ::read(queue.user, &writes, sizeof writes) < 0) return kept;  // nothing was written
  return kept;
}

int take(Queue& queue, Event* events, int capacity) {
  int count = take_user(queue, events, capacity);
  const int16_t first = queue.writers_first ? EVFILT_WRITE : EVFILT_READ;
  const int16_t second = queue.writers_first ? EVFILT_READ : EVFILT_WRITE;
  queue.writers_first = !queue.writers_first;
  count += take_from(queue, first, events + count, capacity - count);
  return count + take_from(queue, second, events + count, capacity - count);
}

Queue* find(int queue_fd) {
  const auto found = state().queues.find(queue_fd);
  return found == state().queues.end() ? nullptr : found->second.get();
}

int fail(int error) {
  errno = error;
  return -1;
}

// Milliseconds until `end`, rounded up.
int left_ms(Clock::time_point end) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
  return static_cast<int>(std::max<int64_t>(left, 0));
}

int scan(int queue_fd, Event* events, int capacity, const timespec* timeout) {
  const auto span = timeout == nullptr
                        ? std::chrono::nanoseconds{0}
                        : std::chrono::seconds{timeout->tv_sec} + std::chrono::nanoseconds{timeout->tv_nsec};
  const auto end = Clock::now() + span;
  for (;;) {
    {
      const std::lock_guard lock(state().mutex);
      Queue* const queue = find(queue_fd);
      if (queue == nullptr) return fail(EBADF);
      const int count = take(*queue, events, capacity);
      if (count > 0) return count;
    }
    const int wait_ms = timeout == nullptr ? -1 : left_ms(end);
    if (wait_ms == 0) return 0;
    epoll_event ready;
    if (::epoll_wait(queue_fd, &ready, 1, wait_ms) < 0) return -1;
  }
}

}  // namespace

// ---- the calls --------------------------------------------------------------------------------------------------------

extern "C" {

int kqueue() {
  auto queue = std::make_unique<Queue>();
  queue->readers = ::epoll_create1(EPOLL_CLOEXEC);
  queue->writers = ::epoll_create1(EPOLL_CLOEXEC);
  queue->user = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  queue->fd = ::epoll_create1(0);  // as on macOS, close-on-exec is for the caller to ask
  if (!queue->is_complete()) {
    const int error = errno;
    queue->close_all();
    return fail(error);
  }
  for (int inner : {queue->readers, queue->writers, queue->user}) {
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    ::epoll_ctl(queue->fd, EPOLL_CTL_ADD, inner, &wanted);
  }
  const std::lock_guard lock(state().mutex);
  const int fd = queue->fd;
  state().queues[fd] = std::move(queue);
  return fd;
}

int kevent(int queue_fd, const Event* changes, int change_count, Event* events, int capacity, const timespec* timeout) {
  int receipts = 0;
  {
    const std::lock_guard lock(state().mutex);
    Queue* const queue = find(queue_fd);
    if (queue == nullptr) return fail(EBADF);
    for (int i = 0; i < change_count; ++i) {
      const Event change = changes[i];  // both lists may be one array
      const int error = make_change(*queue, change);
      if (error == 0 && (change.flags & EV_RECEIPT) == 0) continue;
      if (receipts == capacity && error != 0) return fail(error);
      if (receipts == capacity) continue;
      events[receipts] = change;
      events[receipts].flags |= EV_ERROR;
      events[receipts++].data = error;
    }
  }
  // kevent_internal() in xnu/bsd/kern/kern_event.c: with answers to changes in the list, no events are looked for.
  if (receipts > 0 || capacity == 0) return receipts;
  return scan(queue_fd, events, capacity, timeout);
}

// In place of the C library's, for every call in the program.
int close(int fd) {
  {
    const std::lock_guard lock(state().mutex);
    state().shut.erase(fd);
    for (const int16_t filter : {EVFILT_READ, EVFILT_WRITE}) {
      for (auto& [queue_fd, queue] : state().queues) {
        epoll_event unused{};
        const Key key{filter, static_cast<uintptr_t>(fd)};
        if (queue->serials.count(key) != 0) ::epoll_ctl(queue->epoll_of(filter), EPOLL_CTL_DEL, fd, &unused);
        forget(*queue, key);
      }
    }
    const auto queue = state().queues.find(fd);
    if (queue != state().queues.end()) {
      queue->second->fd = -1;
      queue->second->close_all();
      state().queues.erase(queue);
    }
  }
  return close_only(fd);
}

int shutdown(int fd, int how) noexcept {
  if (how != SHUT_RD) {
    const std::lock_guard lock(state().mutex);
    state().shut.insert(fd);
  }
  return static_cast<int>(::syscall(SYS_shutdown, fd, how));
}

}  // extern "C"
