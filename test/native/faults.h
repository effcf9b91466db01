// System calls that fail, shorten and repeat by a random schedule. Installed in edgewire::sys; the real call happens
// behind it, so that whatever is said to have happened is what the kernel did.
//
// Readiness is edge-triggered: after an invented EAGAIN, or a call that was made shorter than the kernel would have,
// no edge comes. So each of those is remembered, and a later look at the poller reports that direction again.
//
// There are two pollers, and each system has the calls of one (a test on Linux brings the other: test/native/kqueue).
#pragma once

#if __has_include(<sys/epoll.h>)
#include <sys/epoll.h>
#define EDGEWIRE_FAULTS_EPOLL 1
#endif
#if __has_include(<sys/event.h>)
#include <sys/event.h>
#define EDGEWIRE_FAULTS_KQUEUE 1
#endif

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <random>
#include <vector>

#include "core/poller.h"
#include "core/sys.h"

namespace edgewire::test {

class Faults {
 public:
  // One in `rarity` calls meets a fault. Everything real again when it goes.
  Faults(uint64_t seed, uint64_t rarity) : random_(seed), rarity_(rarity), real_(real_sys()) {
    active_ = this;
    install();
  }
  ~Faults() {
    sys = real_;
    active_ = nullptr;
  }
  Faults(const Faults&) = delete;
  Faults& operator=(const Faults&) = delete;

  // From now on only what was promised: what is owed is still reported, nothing new goes wrong.
  void stop() { stopped_ = true; }
  bool owes_events() const { return !owed_.empty(); }
  uint64_t count() const { return count_; }
  bool strike() {
    if (stopped_ || random_() % rarity_ != 0) return false;
    count_ += 1;
    return true;
  }
  uint64_t below(uint64_t limit) { return random_() % limit; }

 private:
  void install() {
    sys.accept = [](int fd, sockaddr* address, socklen_t* length) noexcept {
      return active_->accept(fd, address, length);
    };
    sys.recv = [](int fd, void* into, size_t bytes) noexcept {
      const iovec piece{into, bytes};
      return active_->recv(fd, &piece, 1);
    };
    sys.recv_pieces = [](int fd, const iovec* pieces, int count) noexcept { return active_->recv(fd, pieces, count); };
    sys.send = [](int fd, const void* data, size_t bytes) noexcept {
      const iovec piece{const_cast<void*>(data), bytes};
      return active_->send(fd, &piece, 1);
    };
    sys.send_pieces = [](int fd, const iovec* pieces, int count) noexcept { return active_->send(fd, pieces, count); };
    sys.close = [](int fd) noexcept {
      active_->tokens_.erase(fd);
      active_->owed_.erase(fd);
      return active_->real_.close(fd);
    };
    sys.connect = [](int fd, const sockaddr* address, socklen_t length) noexcept {
      const int result = active_->real_.connect(fd, address, length);
      return result == -EINPROGRESS && active_->strike() ? -EINTR : result;
    };
#ifdef EDGEWIRE_FAULTS_EPOLL
    sys.epoll_ctl = [](int epoll_fd, int operation, int fd, epoll_event* event) noexcept {
      return active_->epoll_ctl(epoll_fd, operation, fd, event);
    };
    sys.epoll_wait = [](int epoll_fd, epoll_event* events, int capacity, int timeout_ms) noexcept {
      return active_->epoll_wait(epoll_fd, events, capacity, timeout_ms);
    };
#endif
#ifdef EDGEWIRE_FAULTS_KQUEUE
    sys.kevent = [](int queue_fd, const KqueueEvent* changes, int change_count, KqueueEvent* events, int capacity,
                    const timespec* timeout) noexcept {
      return change_count > 0 ? active_->change(queue_fd, changes, change_count, events, capacity)
                              : active_->kevent_wait(queue_fd, events, capacity, timeout);
    };
#endif
  }

  int pick(std::initializer_list<int> errors) { return -*(errors.begin() + below(errors.size())); }

  int accept(int fd, sockaddr* address, socklen_t* length) noexcept {
    if (!strike()) return real_.accept(fd, address, length);
    const int error = pick({EINTR, EAGAIN, EMFILE, ENFILE, ECONNABORTED, ENOBUFS, ENOMEM, EPROTO});
    if (error == -EAGAIN) owed_[fd] |= kReadable;
    return error;
  }

  ssize_t recv(int fd, const iovec* pieces, int count) noexcept {
    if (!strike()) return real_.recv_pieces(fd, pieces, count);
    switch (below(8)) {
      case 0: return -EINTR;
      case 1: return below(4) == 0 ? pick({ECONNRESET, ETIMEDOUT, EHOSTUNREACH}) : -EINTR;
      case 2:
      case 3: owed_[fd] |= kReadable; return -EAGAIN;
      default: owed_[fd] |= kReadable; return recv_some(fd, pieces, count);
    }
  }
  // Less than there may be: often one byte, sometimes up to the middle of a later piece.
  ssize_t recv_some(int fd, const iovec* pieces, int count) noexcept {
    iovec fewer[2];
    const int kept = 1 + static_cast<int>(below(static_cast<uint64_t>(count)));
    std::copy_n(pieces, kept, fewer);
    iovec& last = fewer[kept - 1];
    last.iov_len = below(2) == 0 ? 1 : 1 + below(last.iov_len);
    return real_.recv_pieces(fd, fewer, kept);
  }

  ssize_t send(int fd, const iovec* pieces, int count) noexcept {
    if (!strike()) return real_.send_pieces(fd, pieces, count);
    switch (below(8)) {
      case 0: return -EINTR;
      case 1: return below(4) == 0 ? pick({ECONNRESET, EPIPE, ENOBUFS, ETIMEDOUT}) : -EINTR;
      case 2:
      case 3: owed_[fd] |= kWritable; return -EAGAIN;
      default: {
        owed_[fd] |= kWritable;
        const iovec& piece = pieces[0];
        return real_.send(fd, piece.iov_base, below(2) == 0 ? 1 : 1 + below(piece.iov_len));
      }
    }
  }

  void note_added(int fd, uint64_t token) {
    tokens_[fd] = token;
    old_tokens_.push_back(token);
  }

  // What a look at the poller finds besides: what is owed, one of its `count` events again, an event of a connection
  // that is long gone. `token_at` tells whose an event is, `add` takes a token and its readiness.
  void add_events(int count, int capacity, auto token_at, auto add) {
    for (auto owed = owed_.begin(); owed != owed_.end() && count < capacity;) {
      if (!stopped_ && below(3) == 0) {
        ++owed;
        continue;
      }
      add(tokens_[owed->first], owed->second);
      owed = owed_.erase(owed);
    }
    if (count > 0 && strike()) add(token_at(below(static_cast<uint64_t>(count))), kReadable | kWritable);
    if (!old_tokens_.empty() && strike()) add(old_tokens_[below(old_tokens_.size())], kReadable | kWritable);
  }

#ifdef EDGEWIRE_FAULTS_EPOLL
  int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event* event) noexcept {
    if (operation == EPOLL_CTL_ADD && strike()) return pick({ENOMEM, ENOSPC});
    if (operation == EPOLL_CTL_ADD) note_added(fd, event->data.u64);
    return real_.epoll_ctl(epoll_fd, operation, fd, event);
  }

  int epoll_wait(int epoll_fd, epoll_event* events, int capacity, int timeout_ms) noexcept {
    if (strike()) return -EINTR;
    // Some room for what is added; what does not fit stays in the kernel's list.
    int count = real_.epoll_wait(epoll_fd, events, std::max(capacity / 2, 1), timeout_ms);
    if (count < 0) return count;
    add_events(
        count, capacity, [&](uint64_t i) { return events[i].data.u64; },
        [&](uint64_t token, uint8_t ready) {
          const uint32_t in = (ready & kReadable) != 0 ? uint32_t{EPOLLIN} : 0;
          const uint32_t out = (ready & kWritable) != 0 ? uint32_t{EPOLLOUT} : 0;
          if (count < capacity) events[count++] = {.events = in | out, .data = {.u64 = token}};
        });
    return count;
  }
#endif

#ifdef EDGEWIRE_FAULTS_KQUEUE
  // Registering fails as a whole, or in one of the two filters while the other one is there; or a signal comes when both
  // have been made.
  int change(int queue_fd, const KqueueEvent* changes, int count, KqueueEvent* events, int capacity) noexcept {
    constexpr timespec kAtOnce{0, 0};
    const bool adds = (changes[0].flags & EV_ADD) != 0 && changes[0].filter != EVFILT_USER;
    if (adds) note_added(static_cast<int>(changes[0].ident), std::bit_cast<uint64_t>(changes[0].udata));
    if (!strike()) return real_.kevent(queue_fd, changes, count, events, capacity, &kAtOnce);
    const uint64_t fault = below(4);
    if (adds && fault == 0) return pick({ENOMEM, EACCES});
    if (fault == 1) {
      real_.kevent(queue_fd, changes, count, events, capacity, &kAtOnce);
      return -EINTR;
    }
    const int got = real_.kevent(queue_fd, changes, count, events, capacity, &kAtOnce);
    if (!adds || got != count) return got;
    const uint64_t which = below(static_cast<uint64_t>(count));
    KqueueEvent undo = changes[which];
    undo.flags = EV_DELETE;
    real_.kevent(queue_fd, &undo, 1, nullptr, 0, &kAtOnce);
    events[which].data = ENOMEM;
    return got;
  }

  int kevent_wait(int queue_fd, KqueueEvent* events, int capacity, const timespec* timeout) noexcept {
    if (strike()) return -EINTR;
    int count = real_.kevent(queue_fd, nullptr, 0, events, std::max(capacity / 2, 1), timeout);
    if (count < 0) return count;
    add_events(
        count, capacity, [&](uint64_t i) { return std::bit_cast<uint64_t>(events[i].udata); },
        [&](uint64_t token, uint8_t ready) {
          for (const int16_t filter : {EVFILT_READ, EVFILT_WRITE}) {
            if ((ready & (filter == EVFILT_READ ? kReadable : kWritable)) == 0 || count == capacity) continue;
            events[count] = KqueueEvent{};
            events[count].filter = filter;
            events[count++].udata = std::bit_cast<void*>(token);
          }
        });
    if (!stopped_) std::shuffle(events, events + count, random_);  // in any order
    return count;
  }
#endif

  static inline Faults* active_ = nullptr;

  std::mt19937_64 random_;
  uint64_t rarity_;
  SysTable real_;
  bool stopped_ = false;
  uint64_t count_ = 0;
  std::map<int, uint64_t> tokens_;    // of descriptors in the poller
  std::vector<uint64_t> old_tokens_;  // every token there ever was
  std::map<int, uint8_t> owed_;       // readiness that must come again
};

}  // namespace edgewire::test
