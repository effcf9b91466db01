// System calls that fail, shorten and repeat by a random schedule. Installed in edgewire::sys; the real call happens
// behind it, so that whatever is said to have happened is what the kernel did.
//
// Readiness is edge-triggered: after an invented EAGAIN, or a call that was made shorter than the kernel would have,
// no edge comes. So each of those is remembered, and a later epoll_wait() reports that direction again.
#pragma once

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <random>
#include <vector>

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
    sys.recv = [](int fd, void* into, size_t bytes) noexcept { return active_->recv(fd, into, bytes); };
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
    sys.epoll_ctl = [](int epoll_fd, int operation, int fd, epoll_event* event) noexcept {
      return active_->epoll_ctl(epoll_fd, operation, fd, event);
    };
    sys.epoll_wait = [](int epoll_fd, epoll_event* events, int capacity, int timeout_ms) noexcept {
      return active_->epoll_wait(epoll_fd, events, capacity, timeout_ms);
    };
  }

  int pick(std::initializer_list<int> errors) { return -*(errors.begin() + below(errors.size())); }

  int accept(int fd, sockaddr* address, socklen_t* length) noexcept {
    if (!strike()) return real_.accept(fd, address, length);
    const int error = pick({EINTR, EAGAIN, EMFILE, ENFILE, ECONNABORTED, ENOBUFS, ENOMEM, EPROTO});
    if (error == -EAGAIN) owed_[fd] |= EPOLLIN;
    return error;
  }

  ssize_t recv(int fd, void* into, size_t bytes) noexcept {
    if (!strike()) return real_.recv(fd, into, bytes);
    switch (below(8)) {
      case 0: return -EINTR;
      case 1: return below(4) == 0 ? pick({ECONNRESET, ETIMEDOUT, EHOSTUNREACH}) : -EINTR;
      case 2:
      case 3: owed_[fd] |= EPOLLIN; return -EAGAIN;
      default: owed_[fd] |= EPOLLIN; return real_.recv(fd, into, below(2) == 0 ? 1 : 1 + below(bytes));
    }
  }

  ssize_t send(int fd, const iovec* pieces, int count) noexcept {
    if (!strike()) return real_.send_pieces(fd, pieces, count);
    switch (below(8)) {
      case 0: return -EINTR;
      case 1: return below(4) == 0 ? pick({ECONNRESET, EPIPE, ENOBUFS, ETIMEDOUT}) : -EINTR;
      case 2:
      case 3: owed_[fd] |= EPOLLOUT; return -EAGAIN;
      default: {
        owed_[fd] |= EPOLLOUT;
        const iovec& piece = pieces[0];
        return real_.send(fd, piece.iov_base, below(2) == 0 ? 1 : 1 + below(piece.iov_len));
      }
    }
  }

  int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event* event) noexcept {
    if (operation == EPOLL_CTL_ADD && strike()) return pick({ENOMEM, ENOSPC});
    if (operation == EPOLL_CTL_ADD) {
      tokens_[fd] = event->data.u64;
      old_tokens_.push_back(event->data.u64);
    }
    return real_.epoll_ctl(epoll_fd, operation, fd, event);
  }

  int epoll_wait(int epoll_fd, epoll_event* events, int capacity, int timeout_ms) noexcept {
    if (strike()) return -EINTR;
    // Some room for what is added; what does not fit stays in the kernel's list.
    int count = real_.epoll_wait(epoll_fd, events, std::max(capacity / 2, 1), timeout_ms);
    const auto add = [&](uint64_t token, uint32_t bits) {
      if (count >= 0 && count < capacity) events[count++] = {.events = bits, .data = {.u64 = token}};
    };
    for (auto owed = owed_.begin(); owed != owed_.end() && count < capacity;) {
      if (!stopped_ && below(3) == 0) {
        ++owed;
        continue;
      }
      add(tokens_[owed->first], owed->second);
      owed = owed_.erase(owed);
    }
    if (count > 0 && strike()) add(events[below(static_cast<uint64_t>(count))].data.u64, EPOLLIN | EPOLLOUT);
    if (!old_tokens_.empty() && strike()) add(old_tokens_[below(old_tokens_.size())], EPOLLIN | EPOLLOUT);
    return count;
  }

  static inline Faults* active_ = nullptr;

  std::mt19937_64 random_;
  uint64_t rarity_;
  SysTable real_;
  bool stopped_ = false;
  uint64_t count_ = 0;
  std::map<int, uint64_t> tokens_;    // of descriptors in the poller
  std::vector<uint64_t> old_tokens_;  // every token there ever was
  std::map<int, uint32_t> owed_;      // events that must come again
};

}  // namespace edgewire::test
