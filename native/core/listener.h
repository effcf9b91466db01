// Listening sockets: opening them, and what the reactor keeps of each.
#pragma once

#include <cstdint>
#include <string>

#include "core/sockaddr.h"

namespace edgewire {

struct ListenOptions {
  int backlog = 0;          // 0: as many as the kernel allows
  bool ipv6_only = false;   // otherwise "::" also takes IPv4 clients, as in Node
  bool reuse_port = false;  // SO_REUSEPORT: several processes or threads on one port
  bool no_delay = true;     // accepted sockets inherit TCP_NODELAY from the listener: no system call per connection
  uint32_t low_water_bytes = 0;
};

enum class ListenerState : uint8_t {
  kFree,
  kAccepting,
  kPaused,   // JavaScript asked for it
  kBackoff,  // accept(2) met a limit of the process or the system; resumes at `resume_ms`
};

struct Listener {
  int fd = -1;
  ListenerState state = ListenerState::kFree;
  bool ready = false;     // sticky readiness, as of a connection
  int pending_errno = 0;  // an accept error that JavaScript has not been told yet
  uint32_t generation = 0;
  uint32_t low_water_bytes = 0;
  double resume_ms = 0;     // valid in kBackoff
  double backoff_ms = 0;    // the last delay; 0 after a success
  std::string unlink_path;  // a socket file to remove on close, while it is still ours
  uint64_t unlink_device = 0;
  uint64_t unlink_inode = 0;
};

// Opens a listening socket. Returns the descriptor or -errno; nothing stays open after an error.
int open_listener(const SocketAddress& address, const ListenOptions& options) noexcept;
// Takes over a descriptor that somebody else has bound (and perhaps put to listen): 0 or -errno; the descriptor stays
// the caller's after an error.
int adopt_listener(int fd, const ListenOptions& options) noexcept;

// Removes the file that bind(2) has just made for a listener that does not come about.
void discard_socket_file(const SocketAddress& address) noexcept;
// Remembers the socket file's identity, so that close removes it only while it is the one that was made here.
void remember_socket_file(Listener& listener, const SocketAddress& address) noexcept;
void remove_socket_file(Listener& listener) noexcept;

}  // namespace edgewire
