#include "core/listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>

#include <cerrno>
#include <climits>

#include "core/sys.h"

namespace edgewire {
namespace {

int set_flag(int fd, int level, int name, bool on) noexcept {
  int value = on ? 1 : 0;
  return sys.setsockopt(fd, level, name, &value, sizeof value);
}

// listen(2) cuts a backlog down to net.core.somaxconn (Linux) or kern.ipc.somaxconn (macOS), so the largest number
// asks for the kernel's maximum. macOS takes a short.
int effective_backlog(int backlog) noexcept { return backlog > 0 ? backlog : SHRT_MAX; }

int configure(int fd, int family, const ListenOptions& options) noexcept {
  if (family == AF_UNIX) return 0;
  // Connections in TIME_WAIT do not keep a restarted server from its port.
  int error = set_flag(fd, SOL_SOCKET, SO_REUSEADDR, true);
  if (error == 0 && options.reuse_port) error = set_flag(fd, SOL_SOCKET, SO_REUSEPORT, true);
  if (error == 0 && family == AF_INET6) error = set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY, options.ipv6_only);
  if (error == 0 && options.no_delay) error = set_flag(fd, IPPROTO_TCP, TCP_NODELAY, true);
  return error;
}

// nullptr when the address has no file: an IP address, an abstract name.
const char* socket_file(const SocketAddress& address) noexcept {
  if (address.family() != AF_UNIX) return nullptr;
  const char* path = reinterpret_cast<const sockaddr_un*>(&address.storage)->sun_path;
  return path[0] == 0 ? nullptr : path;
}

}  // namespace

int open_listener(const SocketAddress& address, const ListenOptions& options) noexcept {
  int fd = sys.socket(address.family(), SOCK_STREAM);
  if (fd < 0) return fd;
  int error = configure(fd, address.family(), options);
  if (error == 0) error = sys.bind(fd, address.get(), address.length);
  if (error == 0) {
    error = sys.listen(fd, effective_backlog(options.backlog));
    if (error == 0) return fd;
    discard_socket_file(address);
  }
  sys.close(fd);
  return error;
}

void discard_socket_file(const SocketAddress& address) noexcept {
  const char* path = socket_file(address);
  if (path != nullptr) sys.unlink(path);
}

int adopt_listener(int fd, const ListenOptions& options) noexcept {
  int type = 0;
  int error = sys.getsockopt_int(fd, SOL_SOCKET, SO_TYPE, &type);
  if (error < 0) return error;
  if (type != SOCK_STREAM) return -EPROTOTYPE;
  error = sys.set_nonblocking(fd);
  if (error < 0) return error;
  SocketAddress local;
  local.length = sizeof local.storage;
  error = sys.getsockname(fd, local.get(), &local.length);
  if (error < 0) return error;
  if (local.family() != AF_UNIX && options.no_delay) set_flag(fd, IPPROTO_TCP, TCP_NODELAY, true);
  return sys.listen(fd, effective_backlog(options.backlog));
}

void remember_socket_file(Listener& listener, const SocketAddress& address) noexcept {
  const char* path = socket_file(address);
  struct stat info;
  if (path == nullptr || ::stat(path, &info) != 0) return;
  listener.unlink_path = path;
  listener.unlink_device = static_cast<uint64_t>(info.st_dev);
  listener.unlink_inode = static_cast<uint64_t>(info.st_ino);
}

void remove_socket_file(Listener& listener) noexcept {
  if (listener.unlink_path.empty()) return;
  struct stat info;
  if (::lstat(listener.unlink_path.c_str(), &info) == 0 &&
      static_cast<uint64_t>(info.st_dev) == listener.unlink_device &&
      static_cast<uint64_t>(info.st_ino) == listener.unlink_inode) {
    sys.unlink(listener.unlink_path.c_str());
  }
  listener.unlink_path.clear();
}

}  // namespace edgewire
