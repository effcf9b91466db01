#include "memory_kernel.h"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace edgewire::bench {
namespace {

size_t bytes_of(const iovec* pieces, int count) noexcept {
  size_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += pieces[i].iov_len;
  return bytes;
}

}  // namespace

MemoryKernel::MemoryKernel() {
  active_ = this;
  install_poller();
  install_opening();
  install_traffic();
}

MemoryKernel::~MemoryKernel() {
  sys = real_sys();
  active_ = nullptr;
}

void MemoryKernel::connect() noexcept {
  pending_++;
  raise_edge(listener_, EPOLLIN);
}

void MemoryKernel::send_to(int fd, uint64_t bytes) noexcept {
  files_[static_cast<size_t>(fd)].unread_bytes += bytes;
  // As the real one: an event tells the whole state.
  raise_edge(fd, EPOLLIN | EPOLLOUT);
}

void MemoryKernel::send_fin_to(int fd) noexcept {
  files_[static_cast<size_t>(fd)].fin = true;
  raise_edge(fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
}

void MemoryKernel::raise_edge(int fd, uint32_t bits) noexcept {
  File& file = files_[static_cast<size_t>(fd)];
  if (file.edge == 0) edges_.push_back(fd);
  file.edge |= bits;
}

int MemoryKernel::open() noexcept {
  if (free_.empty()) {
    files_.emplace_back();
    return static_cast<int>(files_.size() - 1);
  }
  const int fd = free_.back();
  free_.pop_back();
  files_[static_cast<size_t>(fd)] = {};
  return fd;
}

int MemoryKernel::collect(epoll_event* events, int capacity) noexcept {
  const size_t taken = std::min(edges_.size(), static_cast<size_t>(capacity));
  int count = 0;
  for (size_t i = 0; i < taken; i++) {
    File& file = files_[static_cast<size_t>(edges_[i])];
    if (file.edge == 0) continue;  // closed meanwhile
    events[count].events = file.edge;
    events[count].data.u64 = file.token;
    file.edge = 0;
    count++;
  }
  edges_.erase(edges_.begin(), edges_.begin() + static_cast<ptrdiff_t>(taken));
  return count;
}

ssize_t MemoryKernel::receive(int fd, size_t bytes) noexcept {
  File& file = files_[static_cast<size_t>(fd)];
  const uint64_t got = std::min<uint64_t>(bytes, file.unread_bytes);
  file.unread_bytes -= got;
  if (got > 0) return static_cast<ssize_t>(got);
  return file.fin ? 0 : -EAGAIN;
}

void MemoryKernel::install_poller() noexcept {
  sys.epoll_create = []() noexcept { return active_->open(); };
  sys.epoll_ctl = [](int, int, int fd, epoll_event* event) noexcept {
    count(Call::kEpollCtl);
    active_->files_[static_cast<size_t>(fd)].token = event->data.u64;
    return 0;
  };
  sys.epoll_wait = [](int, epoll_event* events, int capacity, int) noexcept {
    count(Call::kEpollWait);
    return active_->collect(events, capacity);
  };
  sys.eventfd = []() noexcept { return active_->open(); };
  sys.monotonic_ns = []() noexcept {
    count(Call::kClock);
    return active_->now_ns_;
  };
  sys.epoch_ns = []() noexcept {
    count(Call::kClock);
    return active_->now_ns_;
  };
}

void MemoryKernel::install_opening() noexcept {
  sys.socket = [](int, int) noexcept {
    count(Call::kOther);
    return active_->open();
  };
  sys.bind = [](int, const sockaddr*, socklen_t) noexcept { return 0; };
  sys.listen = [](int fd, int) noexcept {
    active_->listener_ = fd;
    return 0;
  };
  sys.accept = [](int, sockaddr* address, socklen_t* length) noexcept {
    count(Call::kAccept);
    if (active_->pending_ == 0) return -EAGAIN;
    active_->pending_--;
    sockaddr_in peer{};
    peer.sin_family = AF_INET;
    peer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *reinterpret_cast<sockaddr_in*>(address) = peer;
    *length = sizeof peer;
    return active_->open();
  };
  sys.connect = [](int, const sockaddr*, socklen_t) noexcept { return -ECONNREFUSED; };
  sys.shutdown_write = [](int) noexcept {
    count(Call::kOther);
    return 0;
  };
  sys.close = [](int fd) noexcept {
    count(Call::kClose);
    active_->files_[static_cast<size_t>(fd)].edge = 0;
    active_->free_.push_back(fd);
    return 0;
  };
  sys.open_null = []() noexcept { return active_->open(); };
}

void MemoryKernel::install_traffic() noexcept {
  sys.recv = [](int fd, void*, size_t bytes) noexcept {
    count(Call::kRecv);
    return active_->receive(fd, bytes);
  };
  sys.recv_pieces = [](int fd, const iovec* pieces, int count_of) noexcept {
    count(Call::kRecv);
    return active_->receive(fd, bytes_of(pieces, count_of));
  };
  sys.send = [](int, const void*, size_t bytes) noexcept {
    count(Call::kSend);
    active_->taken_bytes_ += bytes;
    return static_cast<ssize_t>(bytes);
  };
  sys.send_pieces = [](int, const iovec* pieces, int count_of) noexcept {
    count(Call::kSend);
    const size_t bytes = bytes_of(pieces, count_of);
    active_->taken_bytes_ += bytes;
    return static_cast<ssize_t>(bytes);
  };
  sys.getsockopt_int = [](int, int, int, int* value) noexcept {
    count(Call::kOther);
    *value = 0;
    return 0;
  };
  sys.setsockopt = [](int, int, int, const void*, socklen_t) noexcept {
    count(Call::kOther);
    return 0;
  };
  sys.unread_bytes = [](int fd) noexcept {
    count(Call::kOther);
    return static_cast<int>(active_->files_[static_cast<size_t>(fd)].unread_bytes);
  };
  sys.unsent_bytes = [](int) noexcept {
    count(Call::kOther);
    return 0;
  };
}

}  // namespace edgewire::bench
