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
#include <cmath>

#ifdef __linux__
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#endif

// macOS has kqueue, and so has a test on Linux that brings its own (test/native/kqueue).
#if __has_include(<sys/event.h>)
#include <sys/event.h>
#define EDGEWIRE_HAS_KQUEUE 1
#else
#define EDGEWIRE_HAS_KQUEUE 0
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

uint64_t read_clock(clockid_t clock) noexcept {
  timespec now;
  ::clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

#ifdef __linux__

constexpr int kSendFlags = MSG_NOSIGNAL;
constexpr int kKeepAliveDelay = TCP_KEEPIDLE;
constexpr int kDiscard = MADV_DONTNEED;

// EINPROGRESS: a socket whose SYN was put off (set_fast_open below) has sent it now, but could not put the bytes in; they
// go when the handshake is over, as with any socket that is not writable yet.
int send_errno() noexcept { return errno == EINPROGRESS ? EAGAIN : errno; }

// The numbers of linux/tcp.h and linux/in.h, for C libraries that do not have the names yet.
#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

int turn_on(int fd, int level, int name) noexcept {
  int on = 1;
  return or_errno(::setsockopt(fd, level, name, &on, sizeof on));
}
int set_fast_open(int fd) noexcept { return turn_on(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT); }
int set_late_port(int fd) noexcept { return turn_on(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT); }

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
int create_timerfd() noexcept { return or_errno(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)); }
int arm_timerfd(int fd, int after_ms) noexcept {
  itimerspec once{};
  once.it_value = {after_ms / 1000, after_ms % 1000 * 1000000L};
  return or_errno(::timerfd_settime(fd, 0, &once, nullptr));
}

int adopt_fd(int fd) noexcept { return set_flags(fd); }

uint64_t monotonic_ns() noexcept { return read_clock(CLOCK_MONOTONIC); }

#else

// Without MSG_NOSIGNAL the socket itself carries the wish (SO_NOSIGPIPE).
constexpr int kSendFlags = 0;
constexpr int kKeepAliveDelay = TCP_KEEPALIVE;
// MADV_DONTNEED only makes pages likelier to be swapped out (madvise(2) on macOS).
constexpr int kDiscard = MADV_FREE;

// A socket that is just being torn down answers a send with EPROTOTYPE, and the next one with EPIPE (libuv's stream.c
// has met it): it is the same news.
int send_errno() noexcept { return errno == EPROTOTYPE ? EPIPE : errno; }

// SO_NWRITE is what the send buffer holds, without the FIN that stands behind it.
int unsent_bytes(int fd) noexcept {
  int bytes = 0;
  socklen_t length = sizeof bytes;
  if (::getsockopt(fd, SOL_SOCKET, SO_NWRITE, &bytes, &length) < 0) return -errno;
  return bytes > 0 ? bytes + 1 : 0;
}

int adopt_fd(int fd) noexcept {
  int on = 1;
  int error = set_flags(fd);
  if (error < 0 || ::setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on) == 0) return error;
  // EINVAL: both directions are shut already, the peer was quicker than we (setsockopt(2) on macOS). What it sent may
  // still lie there, so the socket is served like any other. An accepted one has inherited the option from its listener
  // (sonewconn() in xnu/bsd/kern/uipc_socket2.c).
  return errno == EINVAL ? 0 : -errno;
}

int prepare_socket(int fd) noexcept {
  int error = adopt_fd(fd);
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
int create_timerfd() noexcept { return -ENOSYS; }
int arm_timerfd(int, int) noexcept { return -ENOSYS; }

// connectx(2) would do both, but it is another way to connect, not an option of the socket.
int set_fast_open(int) noexcept { return -ENOPROTOOPT; }
int set_late_port(int) noexcept { return -ENOPROTOOPT; }

// libuv's clock on macOS, mach_continuous_time(); CLOCK_MONOTONIC counts from another instant there.
uint64_t monotonic_ns() noexcept { return read_clock(CLOCK_MONOTONIC_RAW); }

#endif

#if EDGEWIRE_HAS_KQUEUE

int create_kqueue() noexcept {
  int fd = ::kqueue();
  if (fd < 0) return -errno;
  // Not set_flags(): a queue has no O_NONBLOCK.
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) return fd;
  int error = -errno;
  ::close(fd);
  return error;
}
int call_kevent(int queue_fd, const KqueueEvent* changes, int change_count, KqueueEvent* events, int capacity,
                const timespec* timeout) noexcept {
  return or_errno(::kevent(queue_fd, changes, change_count, events, capacity, timeout));
}

#else

int create_kqueue() noexcept { return -ENOSYS; }
int call_kevent(int, const KqueueEvent*, int, KqueueEvent*, int, const timespec*) noexcept { return -ENOSYS; }

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
ssize_t receive_pieces(int fd, const iovec* pieces, int count) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(count);
  return or_errno(::recvmsg(fd, &message, 0));
}
ssize_t send_bytes(int fd, const void* data, size_t bytes) noexcept {
  ssize_t sent = ::send(fd, data, bytes, kSendFlags);
  return sent < 0 ? -send_errno() : sent;
}
ssize_t send_pieces(int fd, const iovec* pieces, int count) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces);
  message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(count);
  ssize_t sent = ::sendmsg(fd, &message, kSendFlags);
  return sent < 0 ? -send_errno() : sent;
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
      .recv_pieces = receive_pieces,
      .send = send_bytes,
      .send_pieces = send_pieces,
      .getsockopt_int = get_option,
      .setsockopt = set_option,
      .getsockname = local_name,
      .getpeername = peer_name,
      .set_nonblocking = adopt_fd,
      .open_null = open_null,
      .set_keepalive_delay = set_keepalive_delay,
      .set_fast_open = set_fast_open,
      .set_late_port = set_late_port,
      .unlink = unlink_path,
      .unread_bytes = unread_bytes,
      .unsent_bytes = unsent_bytes,
      .epoll_create = create_epoll,
      .epoll_ctl = control_epoll,
      .epoll_wait = wait_epoll,
      .eventfd = create_eventfd,
      .timerfd = create_timerfd,
      .arm_timerfd = arm_timerfd,
      .kqueue = create_kqueue,
      .kevent = call_kevent,
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
  // setrlimit(2) on macOS refuses more than OPEN_MAX although getrlimit reports RLIM_INFINITY. Whoever has more already
  // (Node raises the limit as far as it goes) keeps it.
  if (wanted.rlim_cur > OPEN_MAX) wanted.rlim_cur = OPEN_MAX;
  if (wanted.rlim_cur < limit.rlim_cur) return limit.rlim_cur;
#endif
  return ::setrlimit(RLIMIT_NOFILE, &wanted) == 0 ? wanted.rlim_cur : limit.rlim_cur;
}

void discard_pages(void* memory, size_t bytes) noexcept {
  // Only whole pages: what lies on the first and the last may belong to others.
  size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  size_t before = (page - reinterpret_cast<uintptr_t>(memory) % page) % page;
  if (bytes < before) return;
  size_t whole = (bytes - before) / page * page;
  if (whole > 0) ::madvise(static_cast<uint8_t*>(memory) + before, whole, kDiscard);
}

int timeout_ms(double until_ms) noexcept {
  const double left_ms = std::ceil(until_ms - monotonic_ms());
  if (std::isinf(left_ms)) return left_ms > 0 ? -1 : 0;
  return left_ms < 0 ? 0 : left_ms < INT_MAX ? static_cast<int>(left_ms) : INT_MAX;
}

}  // namespace edgewire
