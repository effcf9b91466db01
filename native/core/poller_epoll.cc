// The poller on Linux: see poller.h for the contract and epoll(7) for the rules behind it.
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>

#include "core/check.h"
#include "core/poller.h"
#include "core/sys.h"

namespace edgewire {
namespace {

constexpr uint32_t kEveryDirection = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;

uint8_t ready_from(uint32_t bits) noexcept {
  uint8_t ready = 0;
  if (bits & EPOLLIN) ready |= kReadable;
  if (bits & EPOLLPRI) ready |= kReadable | kUrgent;
  if (bits & EPOLLOUT) ready |= kWritable;
  // EPOLLHUP: both directions are shut. Reading finds the bytes before the FIN, then the FIN.
  if (bits & (EPOLLRDHUP | EPOLLHUP)) ready |= kReadable | kHangup;
  // Not a hangup: what waits in the socket's error queue is told so, too, and an error that ends it brings EPOLLHUP.
  if (bits & EPOLLERR) ready |= kReadable | kWritable | kBroken;
  return ready;
}

}  // namespace

int Poller::open() noexcept {
  EDGEWIRE_CHECK(fd_ < 0);
  int fd = sys.epoll_create();
  if (fd < 0) return fd;
  fd_ = fd;
  int wake_fd = sys.eventfd();
  if (wake_fd < 0) {
    close();
    return wake_fd;
  }
  wake_fd_ = wake_fd;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = kWakeToken;
  int error = sys.epoll_ctl(fd_, EPOLL_CTL_ADD, wake_fd_, &event);
  if (error < 0) close();
  return error;
}

int Poller::add(int fd, uint64_t token) noexcept {
  epoll_event event{};
  event.events = kEveryDirection;
  event.data.u64 = token;
  return sys.epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event);
}

int Poller::add_other_queue(int fd) noexcept {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kOtherQueueToken;
  return sys.epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event);
}

int Poller::set_alarm(int after_ms) noexcept {
  alarm_rang_ = false;
  if (alarm_fd_ < 0) {
    int fd = sys.timerfd();
    if (fd < 0) return fd;
    epoll_event edge{};
    edge.events = EPOLLIN | EPOLLET;
    edge.data.u64 = kAlarmToken;
    int error = sys.epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &edge);
    if (error < 0) {
      sys.close(fd);
      return error;
    }
    alarm_fd_ = fd;
  }
  return sys.arm_timerfd(alarm_fd_, after_ms);
}

int Poller::remove(int fd) noexcept {
  epoll_event unused{};
  return sys.epoll_ctl(fd_, EPOLL_CTL_DEL, fd, &unused);
}

int Poller::wait(PollEvent* events, int capacity, int timeout_ms) noexcept {
  epoll_event raw[kEventsPerWait];
  if (capacity > kEventsPerWait) capacity = kEventsPerWait;
  other_queue_ready_ = false;
  int count = sys.epoll_wait(fd_, raw, capacity, timeout_ms);
  if (count == -EINTR) return 0;
  if (count < 0) return count;
  int kept = 0;
  for (int i = 0; i < count; i++) {
    uint64_t token = raw[i].data.u64;
    if (token >= kAlarmToken) {
      // The wake counter and the alarm's are never read: each write, each expiry is a new edge.
      other_queue_ready_ |= token == kOtherQueueToken;
      alarm_rang_ |= token == kAlarmToken;
      continue;
    }
    events[kept++] = PollEvent{token, ready_from(raw[i].events)};
  }
  return kept;
}

int Poller::wake() noexcept {
  uint64_t one = 1;
  return ::write(wake_fd_, &one, sizeof one) < 0 ? -errno : 0;
}

void Poller::close() noexcept {
  if (alarm_fd_ >= 0) sys.close(alarm_fd_);
  if (wake_fd_ >= 0) sys.close(wake_fd_);
  if (fd_ >= 0) sys.close(fd_);
  alarm_fd_ = wake_fd_ = fd_ = -1;
}

}  // namespace edgewire
