// The model kernel in the table of system calls.
#include "kernel.h"

namespace edgewire::fuzz {

void Kernel::install() {
  sys.socket = [](int family, int) noexcept {
    const int error = active_->open_error();
    const int fd = error < 0 ? error : active_->open_file(Kind::kSocket);
    if (fd < 0) return fd;
    Socket* const socket = active_->new_socket(family);
    socket->fd = fd;
    active_->file_at(fd).socket = socket;
    return fd;
  };
  sys.bind = [](int fd, const sockaddr*, socklen_t) noexcept {
    active_->socket_at(fd);
    return active_->open_error() < 0 ? -EADDRINUSE : 0;
  };
  sys.listen = [](int fd, int) noexcept {
    const int error = active_->open_error();
    if (error < 0) return error;
    File& file = active_->file_at(fd);
    if (file.kind == Kind::kSocket) {
      file.family = file.socket->family;
      file.socket->gone = true;  // not a connection
      file.socket->fd = -1;
    }
    file.kind = Kind::kListener;
    file.socket = nullptr;
    active_->last_listener_ = fd;
    return 0;
  };
  sys.accept = [](int fd, sockaddr* address, socklen_t* length) noexcept {
    return active_->accept(fd, address, length);
  };
  sys.connect = [](int fd, const sockaddr* address, socklen_t) noexcept { return active_->connect(fd, address); };
  sys.shutdown_write = [](int fd) noexcept { return active_->shutdown_write(fd); };
  sys.close = [](int fd) noexcept { return active_->close(fd); };
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
  sys.getsockopt_int = [](int fd, int, int option, int* value) noexcept {
    File& file = active_->file_at(fd);
    // No kernel refuses to tell SO_ERROR.
    const int error = option == SO_ERROR ? 0 : active_->option_error();
    if (error < 0) return error;
    *value = option == SO_TYPE ? SOCK_STREAM : file.socket != nullptr ? take_error(*file.socket) : 0;
    return 0;
  };
  sys.setsockopt = [](int fd, int, int, const void*, socklen_t) noexcept {
    active_->file_at(fd);
    return active_->option_error();
  };
  sys.getsockname = [](int fd, sockaddr* address, socklen_t* length) noexcept {
    name(active_->file_at(fd).family, 1, address, length);
    return active_->option_error();
  };
  sys.getpeername = [](int fd, sockaddr* address, socklen_t* length) noexcept {
    const Socket& socket = active_->socket_at(fd);
    if (socket.dialing || socket.reset) return -ENOTCONN;
    name(socket.family, socket.id, address, length);
    return 0;
  };
  sys.set_nonblocking = [](int fd) noexcept {
    active_->file_at(fd);
    return active_->option_error();
  };
  sys.open_null = []() noexcept {
    const int error = active_->open_error();
    return error < 0 ? error : active_->open_file(Kind::kNull);
  };
  sys.set_fast_open = [](int fd) noexcept {
    active_->socket_at(fd);
    return active_->option_error();
  };
  sys.set_late_port = [](int fd) noexcept {
    active_->socket_at(fd);
    return active_->option_error();
  };
  sys.set_keepalive_delay = [](int fd, int) noexcept {
    active_->file_at(fd);
    return active_->option_error();
  };
  sys.unlink = [](const char*) noexcept { return 0; };
  sys.unsent_bytes = [](int fd) noexcept {
    const Socket& socket = active_->socket_at(fd);
    const int error = active_->option_error();
    return error < 0 ? error : static_cast<int>(socket.sent - socket.acked) + (socket.fin_sent ? 1 : 0);
  };
  sys.epoll_create = []() noexcept { return active_->open_file(Kind::kEpoll); };
  sys.epoll_ctl = [](int epoll_fd, int operation, int fd, epoll_event* event) noexcept {
    return epoll_fd < 0 ? -EBADF : active_->epoll_ctl(operation, fd, event);
  };
  sys.epoll_wait = [](int, epoll_event* events, int capacity, int) noexcept {
    return active_->epoll_wait(events, capacity);
  };
  sys.eventfd = []() noexcept { return active_->open_file(Kind::kEventFd); };
  sys.monotonic_ns = []() noexcept { return active_->now_ns; };
  sys.epoch_ns = []() noexcept { return active_->epoch_ns; };
}

}  // namespace edgewire::fuzz
