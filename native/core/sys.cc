#include "core/sys.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#ifdef __linux__
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#endif

namespace edgewire {
namespace {

template <typename T>
T or_errno(T result) noexcept {
  return result < 0 ? static_cast<T>(-errno) : result;
}

int set_flags(int fd) noexcept {
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) return -errno;
  int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  return ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

#ifdef __linux__

constexpr int kSendFlags = MSG_NOSIGNAL;
constexpr int kKeepAliveDelay = TCP_KEEPIDLE;

int unsent_bytes(int fd) noexcept {
  int bytes = 0;
  return ::ioctl(fd, SIOCOUTQ, &bytes) < 0 ? -errno : bytes;
}

int open_socket(int family, int type) noexcept {
  return or_errno(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}
int accept_one(int fd, sockaddr* address, socklen_t* length) noexcept {
  return or_errno(::accept4(fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC));
}
int create_epoll() noexcept { return or_errno(::epoll_create1(EPOLL_CLOEXEC)); }
int control_epoll(int epoll_fd, int operation, int fd, epoll_event* event) noexcept {
  return or_errno(::epoll_ctl(epoll_fd, operation, fd, event));
}
int wait_epoll(int epoll_fd, epoll_event* events, int capacity, int timeout_ms) noexcept {
  return or_errno(::epoll_wait(epoll_fd, events, capacity, timeout_ms));
}
int create_eventfd() noexcept { return or_errno(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

#else

// Without MSG_NOSIGNAL the socket itself carries the wish (SO_NOSIGPIPE).
constexpr int kSendFlags = 0;
constexpr int kKeepAliveDelay = TCP_KEEPALIVE;

int unsent_bytes(int fd) noexcept {
  int bytes = 0;
  socklen_t length = sizeof bytes;
  return ::getsockopt(fd, SOL_SOCKET, SO_NWRITE, &bytes, &length) < 0 ? -errno : bytes;
}

int prepare_socket(int fd) noexcept {
  int on = 1;
  int error = set_flags(fd);
  if (error == 0 && ::setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on) < 0) error = -errno;
  if (error == 0) return fd;
  ::close(fd);
  return error;
}
int open_socket(int family, int type) noexcept {
  int fd = ::socket(family, type, 0);
  return fd < 0 ? -errno : prepare_socket(fd);
}
int accept_one(int fd, sockaddr* address, socklen_t* length) noexcept {
  int accepted = ::accept(fd, address, length);
  return accepted < 0 ? -errno : prepare_socket(accepted);
}
int create_epoll() noexcept { return -ENOSYS; }
int control_epoll(int, int, int, epoll_event*) noexcept { return -ENOSYS; }
int wait_epoll(int, epoll_event*, int, int) noexcept { return -ENOSYS; }
int create_eventfd() noexcept { return -ENOSYS; }

#endif

int bind_to(int fd, const sockaddr* address, socklen_t length) noexcept {
  return or_errno(::bind(fd, address, length));
}
int listen_on(int fd, int backlog) noexcept { return or_errno(::listen(fd, backlog)); }
int connect_to(int fd, const sockaddr* address, socklen_t length) noexcept {
  return or_errno(::connect(fd, address, length));
}
int shutdown_write(int fd) noexcept { return or_errno(::shutdown(fd, SHUT_WR)); }
int close_fd(int fd) noexcept { return or_errno(::close(fd)); }
ssize_t receive(int fd, void* into, size_t bytes) noexcept { return or_errno(::recv(fd, into, bytes, 0)); }
ssize_t send_bytes(int fd, const void* data, size_t bytes) noexcept {
  return or_errno(::send(fd, data, bytes, kSendFlags));
}
ssize_t send_pieces(int fd, const iovec* pieces, int count) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(count);
  return or_errno(::sendmsg(fd, &message, kSendFlags));
}
int get_option(int fd, int level, int name, int* value) noexcept {
  socklen_t length = sizeof *value;
  return or_errno(::getsockopt(fd, level, name, value, &length));
}
int set_option(int fd, int level, int name, const void* value, socklen_t bytes) noexcept {
  return or_errno(::setsockopt(fd, level, name, value, bytes));
}
int local_name(int fd, sockaddr* address, socklen_t* length) noexcept {
  return or_errno(::getsockname(fd, address, length));
}
int peer_name(int fd, sockaddr* address, socklen_t* length) noexcept {
  return or_errno(::getpeername(fd, address, length));
}
int set_keepalive_delay(int fd, int seconds) noexcept {
  return or_errno(::setsockopt(fd, IPPROTO_TCP, kKeepAliveDelay, &seconds, sizeof seconds));
}
int unread_bytes(int fd) noexcept {
  int bytes = 0;
  return ::ioctl(fd, FIONREAD, &bytes) < 0 ? -errno : bytes;
}
int open_null() noexcept { return or_errno(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }
int unlink_path(const char* path) noexcept { return or_errno(::unlink(path)); }

uint64_t read_clock(clockid_t clock) noexcept {
  timespec now;
  ::clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}
uint64_t monotonic_ns() noexcept { return read_clock(CLOCK_MONOTONIC); }
uint64_t epoch_ns() noexcept { return read_clock(CLOCK_REALTIME); }

}  // namespace

SysTable real_sys() noexcept {
  return SysTable{
      .socket = open_socket,
      .bind = bind_to,
      .listen = listen_on,
      .accept = accept_one,
      .connect = connect_to,
      .shutdown_write = shutdown_write,
      .close = close_fd,
      .recv = receive,
      .send = send_bytes,
      .send_pieces = send_pieces,
      .getsockopt_int = get_option,
      .setsockopt = set_option,
      .getsockname = local_name,
      .getpeername = peer_name,
      .set_nonblocking = set_flags,
      .open_null = open_null,
      .set_keepalive_delay = set_keepalive_delay,
      .unlink = unlink_path,
      .unread_bytes = unread_bytes,
      .unsent_bytes = unsent_bytes,
      .epoll_create = create_epoll,
      .epoll_ctl = control_epoll,
      .epoll_wait = wait_epoll,
      .eventfd = create_eventfd,
      .monotonic_ns = monotonic_ns,
      .epoch_ns = epoch_ns,
  };
}

SysTable sys = real_sys();

uint64_t raise_open_files_limit() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  if (limit.rlim_cur >= limit.rlim_max) return limit.rlim_cur;
  rlimit wanted = limit;
  wanted.rlim_cur = limit.rlim_max;
#ifdef __APPLE__
  // setrlimit(2) on macOS refuses more than OPEN_MAX although getrlimit reports RLIM_INFINITY.
  if (wanted.rlim_cur > OPEN_MAX) wanted.rlim_cur = OPEN_MAX;
#endif
  return ::setrlimit(RLIMIT_NOFILE, &wanted) == 0 ? wanted.rlim_cur : limit.rlim_cur;
}

void discard_pages(void* memory, size_t bytes) noexcept {
  // Only whole pages: what lies on the first and the last may belong to others.
  size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  size_t before = (page - reinterpret_cast<uintptr_t>(memory) % page) % page;
  if (bytes < before) return;
  size_t whole = (bytes - before) / page * page;
  if (whole > 0) ::madvise(static_cast<uint8_t*>(memory) + before, whole, MADV_DONTNEED);
}

}  // namespace edgewire
