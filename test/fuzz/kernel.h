// A kernel in memory: sockets, listeners and one epoll queue behind edgewire::sys, without a single system call. It
// keeps what the real one promises (edges, order, errors told once), and misbehaves wherever that one may, as the
// input says: short counts, EINTR, EAGAIN, errors, limits, spurious, repeated and stale events.
//
// What the peer sends is known from its position alone (Pattern), what it receives is compared at once with what was
// commanded: no socket holds bytes.
#pragma once

#include <netinet/in.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <deque>
#include <initializer_list>
#include <memory>
#include <vector>

#include "core/poller.h"
#include "core/sys.h"
#include "script.h"
#include "socket.h"

namespace edgewire::fuzz {

enum class Call : uint8_t { kAccept, kRecv, kSend, kEpollCtl, kEpollWait, kMemory, kOpen, kOption };

class Kernel {
 public:
  explicit Kernel(Script& script) : script_(script) {
    active_ = this;
    files_.reserve(64);
    install();
  }
  ~Kernel() { active_ = nullptr; }
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  // ---- what the world does --------------------------------------------------------------------------------------------

  Socket* peer_connects(int listener_fd) {
    File* file = find(listener_fd, Kind::kListener);
    if (file == nullptr || sockets.size() >= kSocketsMax) return nullptr;
    Socket* socket = new_socket(file->family);
    file->pending.push_back(socket);
    arm(listener_fd);
    return socket;
  }
  void peer_sends(Socket& socket, uint64_t bytes) {
    const uint64_t unread = socket.peer_sent - socket.read;
    bytes = std::min(bytes, kReceiveRoom - std::min(unread, kReceiveRoom));
    if (socket.dialing || socket.peer_fin || socket.reset || bytes == 0) return;
    socket.peer_sent += bytes;
    arm(socket.fd);
  }
  void peer_sends_urgent(Socket& socket) {
    if (socket.dialing || socket.peer_fin || socket.reset || socket.family == AF_UNIX) return;
    socket.urgent_at = socket.peer_sent;
    arm(socket.fd);
  }
  void peer_reads(Socket& socket, uint64_t bytes) {
    socket.acked += std::min(bytes, socket.sent - socket.acked);
    if (!socket.is_full || socket.sent - socket.acked >= socket.room) return;
    socket.is_full = false;
    arm(socket.fd);
  }
  void set_room(Socket& socket, uint64_t bytes) {
    socket.room = bytes;
    socket.is_full = socket.is_full || socket.sent - socket.acked >= bytes;
    peer_reads(socket, 0);
  }
  void peer_finishes(Socket& socket) {
    if (socket.dialing || socket.reset) return;
    socket.peer_fin = true;
    arm(socket.fd);
  }
  void peer_resets(Socket& socket, int error) {
    if (socket.reset) return;
    socket.reset = true;
    socket.dialing = false;
    socket.error = error;
    arm(socket.fd);
  }
  void peer_answers(Socket& socket) {
    if (!socket.dialing) return;
    socket.dialing = false;
    arm(socket.fd);
  }
  // An event that no edge stands behind. The token may be of a connection long gone; of one that lives, no kernel
  // invents a FIN or an error.
  void invent_event(uint64_t token, uint32_t bits) {
    const bool lives = std::any_of(files_.begin(), files_.end(),
                                   [token](const File& file) { return file.registered && file.token == token; });
    if (lives) bits &= EPOLLIN | EPOLLPRI | EPOLLOUT;
    invented_.push_back({.events = bits, .data = {.u64 = token}});
  }

  // ---- what may be looked at ------------------------------------------------------------------------------------------

  Socket* socket_of(uint32_t index) { return index < by_index_.size() ? by_index_[index] : nullptr; }
  bool has_events() const { return !armed_.empty() || !invented_.empty(); }
  size_t open_files() const { return open_files_; }
  int last_listener() const { return last_listener_; }  // the descriptor that was put to listen last
  uint8_t mood(Call call) { return (faults >> static_cast<int>(call) & 1) != 0 ? script_.mood() : 0; }
  // A listening socket that somebody else has made.
  int foreign_listener(int family) {
    const int fd = open_file(Kind::kListener);
    if (fd >= 0) file_at(fd).family = family;
    last_listener_ = fd;
    return fd;
  }

  std::vector<std::unique_ptr<Socket>> sockets;
  std::vector<uint64_t> tokens;  // all there ever were
  uint64_t now_ns = 1'000'000'000'000;
  uint64_t epoch_ns = 1'700'000'000'000'000'000;
  size_t files_max = kFilesMax;
  uint8_t faults = 0;  // a bit for each Call

  static constexpr size_t kFilesMax = 4096;
  static constexpr size_t kSocketsMax = 1500;
  static constexpr uint64_t kReceiveRoom = 256 * 1024;

 private:
  static constexpr int kFirstFd = 1 << 20;
  enum class Kind : uint8_t { kNone, kSocket, kListener, kEpoll, kEventFd, kNull };
  struct File {
    Kind kind = Kind::kNone;
    bool registered = false;
    bool armed = false;
    int family = AF_INET;
    uint64_t token = 0;
    Socket* socket = nullptr;
    std::vector<Socket*> pending;  // of a listener, oldest first, from `accepted` on
    size_t accepted = 0;

    bool any_pending() const { return accepted < pending.size(); }
  };

  // ---- files ----------------------------------------------------------------------------------------------------------

  Socket* new_socket(int family) {
    sockets.push_back(std::make_unique<Socket>());
    sockets.back()->id = static_cast<uint32_t>(sockets.size());
    sockets.back()->family = family;
    return sockets.back().get();
  }
  int open_file(Kind kind) {
    if (open_files_ >= files_max) return -EMFILE;
    size_t slot = files_.size();
    if (free_slots_.empty()) {
      files_.emplace_back();
    } else {
      slot = free_slots_.back();
      free_slots_.pop_back();
    }
    files_[slot].kind = kind;
    open_files_++;
    return kFirstFd + static_cast<int>(slot);
  }
  File& file_at(int fd) {
    const size_t slot = static_cast<size_t>(fd - kFirstFd);
    EXPECT(fd >= kFirstFd && slot < files_.size() && files_[slot].kind != Kind::kNone, "a descriptor that is not open");
    return files_[slot];
  }
  File* find(int fd, Kind kind) {
    if (fd < kFirstFd) return nullptr;
    File& file = file_at(fd);
    return file.kind == kind ? &file : nullptr;
  }
  Socket& socket_at(int fd) {
    File& file = file_at(fd);
    EXPECT(file.kind == Kind::kSocket, "not a socket");
    return *file.socket;
  }
  int close(int fd) {
    File& file = file_at(fd);
    if (file.socket != nullptr) {
      file.socket->fd = -1;
      file.socket->gone = true;
    }
    for (; file.any_pending(); file.accepted++) file.pending[file.accepted]->gone = true;
    file = File{};
    free_slots_.push_back(static_cast<size_t>(fd - kFirstFd));
    open_files_--;
    return mood(Call::kOption) == 1 ? -EINTR : 0;
  }

  // ---- readiness ------------------------------------------------------------------------------------------------------

  void arm(int fd) {
    if (fd < 0) return;
    File& file = file_at(fd);
    if (!file.registered || file.armed) return;
    file.armed = true;
    armed_.push_back(fd);
  }
  static uint32_t state(const File& file) {
    if (file.kind == Kind::kListener) return file.any_pending() ? EPOLLIN : 0;
    if (file.kind != Kind::kSocket) return 0;
    const Socket& socket = *file.socket;
    if (socket.dialing) return 0;
    uint32_t bits = 0;
    if (socket.peer_sent > socket.read || socket.peer_fin || socket.reset) bits |= EPOLLIN;
    if (socket.urgent_at != UINT64_MAX) bits |= EPOLLPRI;
    if (socket.sent - socket.acked < socket.room || socket.reset || socket.fin_sent) bits |= EPOLLOUT;
    if (socket.peer_fin || socket.reset) bits |= EPOLLRDHUP;
    if (socket.reset || (socket.peer_fin && socket.fin_sent)) bits |= EPOLLHUP;
    if (socket.error != 0) bits |= EPOLLERR;
    return bits;
  }
  int epoll_ctl(int operation, int fd, const epoll_event* event) {
    File& file = file_at(fd);
    if (operation == EPOLL_CTL_DEL) {
      EXPECT(file.registered, "removed from the poller, but not in it");
      file.registered = false;
      return 0;
    }
    const uint8_t chosen = mood(Call::kEpollCtl);
    if (chosen % 4 == 1) return chosen / 4 % 2 == 0 ? -ENOMEM : -ENOSPC;
    EXPECT(!file.registered, "added to the poller twice");
    file.registered = true;
    file.token = event->data.u64;
    if (file.kind == Kind::kSocket) {
      const uint32_t index = static_cast<uint32_t>(file.token);
      if (index >= by_index_.size()) by_index_.resize(index + 1);
      by_index_[index] = file.socket;
    }
    tokens.push_back(file.token);
    if (state(file) != 0) arm(fd);
    return 0;
  }
  int epoll_wait(epoll_event* events, int capacity) {
    const uint8_t chosen = mood(Call::kEpollWait);
    if (chosen % 8 == 1) return -EINTR;
    if (chosen % 8 == 2) capacity = 1 + chosen / 8 % 4;
    if (chosen % 8 == 3 && !tokens.empty()) invent_event(tokens[chosen / 8 % tokens.size()], EPOLLIN | EPOLLOUT);
    int count = 0;
    while (count < capacity && !invented_.empty()) {
      events[count++] = invented_.front();
      invented_.pop_front();
    }
    size_t taken = 0;
    while (count < capacity && taken < armed_.size()) {
      File& file = files_[static_cast<size_t>(armed_[taken++] - kFirstFd)];
      if (!file.armed) continue;  // closed meanwhile, and perhaps opened anew
      file.armed = false;
      const uint32_t bits = file.registered ? state(file) : 0;
      if (bits == 0) continue;
      events[count++] = {.events = bits, .data = {.u64 = file.token}};
      if (chosen % 8 == 4 && count < capacity) events[count] = events[count - 1], count++;
    }
    armed_.erase(armed_.begin(), armed_.begin() + static_cast<ptrdiff_t>(taken));
    return count;
  }

  // ---- sockets --------------------------------------------------------------------------------------------------------

  static void name(int family, uint32_t id, sockaddr* address, socklen_t* length) {
    if (family == AF_UNIX) {
      address->sa_family = AF_UNIX;
      *length = sizeof address->sa_family;
      return;
    }
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(static_cast<uint16_t>(id));
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::memcpy(address, &in, sizeof in);
    *length = sizeof in;
  }

  int accept(int fd, sockaddr* address, socklen_t* length) {
    constexpr int kErrors[] = {EINTR, EAGAIN, EMFILE, ENFILE, ECONNABORTED, ENOBUFS, ENOMEM, EPROTO, EPERM};
    File& listener = file_at(fd);
    EXPECT(listener.kind == Kind::kListener, "accept from what does not listen");
    const uint8_t chosen = mood(Call::kAccept);
    const bool any = listener.any_pending();
    if (any && chosen % 16 >= 7) {
      const int error = kErrors[chosen % 16 - 7];
      if (error == EAGAIN) arm(fd);
      if (error == ECONNABORTED || error == EPROTO) {
        listener.pending[listener.accepted++]->gone = true;
      }
      return -error;
    }
    if (!any) return -EAGAIN;
    Socket* const socket = listener.pending[listener.accepted];
    const int accepted = open_file(Kind::kSocket);
    if (accepted < 0) return accepted;
    file_at(fd).accepted++;  // `listener` may have moved
    file_at(accepted).socket = socket;
    socket->fd = accepted;
    name(socket->family, socket->id, address, length);
    return accepted;
  }

  ssize_t recv(int fd, const iovec* pieces, int piece_count) {
    Socket& socket = socket_at(fd);
    uint64_t room = 0;
    for (int i = 0; i < piece_count; i++) {
      EXPECT(pieces[i].iov_len > 0, "a read of nothing");
      room += pieces[i].iov_len;
    }
    const uint8_t chosen = mood(Call::kRecv);
    uint64_t count = std::min(room, socket.peer_sent - socket.read);
    switch (chosen % 16) {
      case 1: return -EINTR;
      case 2: arm(fd); return -EAGAIN;
      case 3: peer_resets(socket, ECONNRESET); break;
      case 4: return -ENOMEM;
      case 5: count = std::min<uint64_t>(count, 1), arm(fd); break;
      case 6: count = std::min<uint64_t>(count, 1 + chosen / 16 * 997), arm(fd); break;
      default: break;
    }
    if (socket.urgent_at > socket.read) {
      count = std::min(count, socket.urgent_at - socket.read);
    } else {
      socket.urgent_at = UINT64_MAX;
    }
    if (count > 0) {
      for (uint64_t taken = 0; taken < count; pieces++) {
        const uint64_t part = std::min<uint64_t>(pieces->iov_len, count - taken);
        std::memcpy(pieces->iov_base, Pattern::at(socket.id, socket.read), part);
        socket.read += part;
        taken += part;
      }
      return static_cast<ssize_t>(count);
    }
    if (socket.error != 0) return -take_error(socket);
    return socket.peer_fin || socket.reset ? 0 : -EAGAIN;
  }

  static int take_error(Socket& socket) {
    const int error = socket.error;
    socket.error = 0;
    return error;
  }

  ssize_t send(int fd, const iovec* pieces, int count) {
    Socket& socket = socket_at(fd);
    EXPECT(!socket.dialing, "sent before the handshake was over");
    const uint8_t chosen = mood(Call::kSend);
    uint64_t room = socket.room - std::min(socket.room, socket.sent - socket.acked);
    switch (chosen % 16) {
      case 1: return -EINTR;
      case 2: arm(fd); return -EAGAIN;
      case 3: peer_resets(socket, chosen / 16 % 2 == 0 ? ECONNRESET : ETIMEDOUT); break;
      case 4: return -ENOBUFS;
      case 5: room = std::min<uint64_t>(room, 1), arm(fd); break;
      case 6: room = std::min<uint64_t>(room, 1 + chosen / 16 * 997), arm(fd); break;
      default: break;
    }
    if (socket.error != 0) return -take_error(socket);
    if (socket.reset || socket.fin_sent) {
      EXPECT(!socket.fin_sent || socket.unpredictable, "sent behind the FIN");
      return -EPIPE;
    }
    uint64_t total = 0;
    for (int i = 0; i < count; i++) {
      EXPECT(pieces[i].iov_len > 0, "an empty piece");
      const uint64_t taken = std::min<uint64_t>(pieces[i].iov_len, room - total);
      take(socket, pieces[i].iov_base, taken);
      total += taken;
      if (taken == pieces[i].iov_len) continue;
      socket.is_full = true;
      break;
    }
    if (total > 0) return static_cast<ssize_t>(total);
    socket.is_full = true;
    return -EAGAIN;
  }
  static void take(Socket& socket, const void* data, uint64_t bytes) {
    EXPECT(socket.unpredictable || socket.output.take(data, bytes), "other bytes were sent than written");
    socket.sent += bytes;
  }

  int connect(int fd, const sockaddr* address) {
    constexpr int kErrors[] = {ECONNREFUSED, ENETUNREACH, EADDRNOTAVAIL, EAGAIN};
    Socket& socket = socket_at(fd);
    const uint8_t chosen = mood(Call::kOpen);
    if (chosen % 8 >= 4) return -kErrors[chosen % 8 - 4];
    socket.family = address->sa_family;
    if (chosen % 8 == 1 || socket.family == AF_UNIX) return 0;
    socket.dialing = true;
    return chosen % 8 == 2 ? -EINTR : -EINPROGRESS;
  }
  int shutdown_write(int fd) {
    Socket& socket = socket_at(fd);
    EXPECT(!socket.fin_sent, "FIN twice");
    EXPECT(socket.unpredictable || socket.sent == socket.output.written(), "FIN before all was sent");
    socket.fin_sent = true;
    if (socket.peer_fin) arm(fd);
    return socket.reset ? -ENOTCONN : 0;
  }
  int option_error() { return mood(Call::kOption) % 8 == 1 ? -ENOBUFS : 0; }
  int open_error() {
    const uint8_t chosen = mood(Call::kOpen) % 8;
    return chosen == 1 ? -ENFILE : chosen == 2 ? -ENOBUFS : 0;
  }

  void install();

  static inline Kernel* active_ = nullptr;

  Script& script_;
  std::vector<File> files_;
  std::vector<size_t> free_slots_;
  size_t open_files_ = 0;
  int last_listener_ = -1;
  std::vector<Socket*> by_index_;  // by connection index: the socket that got it last
  std::vector<int> armed_;         // descriptors with an edge, oldest first
  std::deque<epoll_event> invented_;
};

}  // namespace edgewire::fuzz
