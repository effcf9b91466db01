// System calls, one function each: they return the result or -errno, never -1, and go through one table that a test can
// replace to make any call fail, shorten, block or be interrupted.
//
// EINTR is handled by the callers that may meet it; close() is never repeated (on Linux the descriptor is gone even
// then, see close(2)).
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <ctime>

struct epoll_event;
struct kevent;

namespace edgewire {

// Not `struct kevent` below: the table has a member of that name.
using KqueueEvent = struct ::kevent;

struct SysTable {
  int (*socket)(int family, int type) noexcept;  // non-blocking, close-on-exec
  int (*bind)(int fd, const sockaddr* address, socklen_t length) noexcept;
  int (*listen)(int fd, int backlog) noexcept;
  int (*accept)(int fd, sockaddr* address, socklen_t* length) noexcept;  // non-blocking, close-on-exec
  int (*connect)(int fd, const sockaddr* address, socklen_t length) noexcept;
  int (*shutdown_write)(int fd) noexcept;
  int (*close)(int fd) noexcept;
  ssize_t (*recv)(int fd, void* into, size_t bytes) noexcept;
  ssize_t (*recv_pieces)(int fd, const iovec* pieces, int count) noexcept;
  ssize_t (*send)(int fd, const void* data, size_t bytes) noexcept;  // no SIGPIPE
  ssize_t (*send_pieces)(int fd, const iovec* pieces, int count) noexcept;
  int (*getsockopt_int)(int fd, int level, int name, int* value) noexcept;
  int (*setsockopt)(int fd, int level, int name, const void* value, socklen_t bytes) noexcept;
  int (*getsockname)(int fd, sockaddr* address, socklen_t* length) noexcept;
  int (*getpeername)(int fd, sockaddr* address, socklen_t* length) noexcept;
  int (*set_nonblocking)(int fd) noexcept;                   // as socket() and accept() do it: an inherited descriptor
  int (*open_null)() noexcept;                               // /dev/null: a descriptor to hold in reserve
  int (*set_keepalive_delay)(int fd, int seconds) noexcept;  // the option's name differs between systems
  // For a dialing socket; a system that has not the option answers -ENOPROTOOPT. The first: connect(2) may put the SYN
  // off until there are bytes to go with it (TCP_FASTOPEN_CONNECT). The second: bind(2) with port 0 leaves the port to
  // connect(2), which can then give one to several targets (IP_BIND_ADDRESS_NO_PORT).
  int (*set_fast_open)(int fd) noexcept;
  int (*set_late_port)(int fd) noexcept;
  int (*unlink)(const char* path) noexcept;
  int (*unread_bytes)(int fd) noexcept;  // what recv would find now
  // Bytes that the peer's kernel has not acknowledged yet; a FIN behind them counts as one.
  int (*unsent_bytes)(int fd) noexcept;

  // The readiness queue: Linux has the first six, macOS the last two; what a system has not, answers -ENOSYS.
  int (*epoll_create)() noexcept;
  int (*epoll_ctl)(int epoll_fd, int operation, int fd, epoll_event* event) noexcept;
  int (*epoll_wait)(int epoll_fd, epoll_event* events, int capacity, int timeout_ms) noexcept;
  int (*eventfd)() noexcept;
  int (*timerfd)() noexcept;                          // of the monotonic clock, not armed
  int (*arm_timerfd)(int fd, int after_ms) noexcept;  // once; after_ms: at least 1
  int (*kqueue)() noexcept;                           // close-on-exec
  int (*kevent)(int queue_fd, const KqueueEvent* changes, int change_count, KqueueEvent* events, int capacity,
                const timespec* timeout) noexcept;

  uint64_t (*monotonic_ns)() noexcept;
  uint64_t (*epoch_ns)() noexcept;
};

// The table in force. Only tests write to it, before any reactor runs.
extern SysTable sys;

// The real system calls.
SysTable real_sys() noexcept;

// Raises the soft limit of open files to the hard one. Returns the soft limit in force afterwards.
uint64_t raise_open_files_limit() noexcept;

// Gives the whole pages inside this memory back to the system; its bytes are lost (zero on Linux), it stays valid.
void discard_pages(void* memory, size_t bytes) noexcept;

inline double monotonic_ms() noexcept { return static_cast<double>(sys.monotonic_ns()) / 1e6; }

// For Poller::wait(): how long from now until `until_ms` (monotonic_ms; Infinity: no limit, -1), rounded up, so that the
// time has come when it returns.
int timeout_ms(double until_ms) noexcept;

}  // namespace edgewire
