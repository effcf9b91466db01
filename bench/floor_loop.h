// What all apps do. An app derives from FloorLoop<App, Conn> and has
//
//   void onEvent(int fd, uint32_t events)   something about one of its connections
//   void onEnd(int fd)                      the peer has ended or broken it; the app closes it
//
// and where it wants them, instead of the empty ones below: onOpen, beforeBatch, afterBatch, waitMs. All are found at
// compile time, so that an app which does not need one does not pay for it.
#pragma once

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "floor.h"

namespace edgewire::bench {

// One buffer for everybody: bytes never stay in it from one event to the next. A page more than the 64 KiB of the largest
// common message, which is then a short read; one that fills the buffer costs a second recv that finds nothing.
constexpr size_t kReadBytes = 68 * 1024;
constexpr int kEventsPerWait = 1024;

// What is kept for a connection, and the beginning of what an app keeps. Indexed by descriptor, so that an idle
// connection costs its entry and nothing else. All zero is a connection that has just been accepted.
struct Output {
  char* rest;       // bytes that the kernel did not take, or nullptr; while there are any, nothing is read
  uint32_t offset;  // how much of `rest` has been sent since
  uint32_t length;
  bool outArmed;  // EPOLLOUT is part of the registration
};
static_assert(sizeof(Output) == 24, "an idle connection is meant to cost 24 bytes");

enum class Sent {
  all,
  kept,    // some of it is in `rest`; an event tells when there is room
  failed,  // the connection is broken
};

template <typename App, typename Conn>
class FloorLoop {
 public:
  explicit FloorLoop(const Config& config) : path_(config.path), connLimit_(raiseFdLimit()) {
    // calloc takes this from mmap: a page becomes resident when a connection first uses it.
    conns_ = static_cast<Conn*>(std::calloc(connLimit_, sizeof(Conn)));
    if (conns_ == nullptr) die("calloc");
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) die("epoll_create1");
    signals_ = openSignals();
    control(EPOLL_CTL_ADD, signals_, EPOLLIN);
    listener_ = openListener(config);
    control(EPOLL_CTL_ADD, listener_, EPOLLIN | EPOLLET);
  }

  void run() {
    static epoll_event events[kEventsPerWait];
    for (;;) {
      const int count = epoll_wait(epoll_, events, kEventsPerWait, app().waitMs());
      if (count < 0 && errno != EINTR) die("epoll_wait");
      app().beforeBatch();
      // An event can never be stale here: epoll names a descriptor once per batch, and a connection is closed only
      // while its own event is being handled, or after the batch.
      for (int i = 0; i < count; i++) {
        const int fd = events[i].data.fd;
        if (fd == listener_) {
          acceptAll();
        } else if (fd == signals_) {
          if (path_ != nullptr) unlink(path_);
          return;
        } else {
          app().onEvent(fd, events[i].events);
        }
      }
      app().afterBatch();
    }
  }

 protected:
  void onOpen(int) {}
  void beforeBatch() {}
  void afterBatch() {}
  int waitMs() const { return -1; }

  static bool isHangup(uint32_t events) { return (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0; }
  // An EPOLLOUT that comes alone reports room that nobody may be waiting for.
  static bool isInput(uint32_t events) { return (events & ~static_cast<uint32_t>(EPOLLOUT)) != 0; }

  // Reads, and gives each piece to take(length): it lies in buffer_, and false stops the reading.
  //
  // A read shorter than the buffer has emptied the socket, and whatever arrives afterwards makes a new edge. Only when
  // a hangup has been reported already will no further edge come: then it is read until the end (or the error) shows.
  //
  // Inlined always, so that `take` is, too: it is the hot path of most apps.
  template <typename Take>
  [[gnu::always_inline]] void readAll(int fd, bool untilEmpty, Take&& take) {
    for (;;) {
      const ssize_t got = recv(fd, buffer_, kReadBytes, 0);
      if (got > 0) {
        if (!take(static_cast<size_t>(got))) return;
        if (static_cast<size_t>(got) < kReadBytes && !untilEmpty) return;
        continue;
      }
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) return;
      return app().onEnd(fd);
    }
  }

  // Only for a connection without a rest.
  [[gnu::always_inline]] Sent sendOrKeep(int fd, const char* bytes, size_t length) {
    ssize_t sent;
    do {
      sent = send(fd, bytes, length, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent == static_cast<ssize_t>(length)) return Sent::all;
    if (sent < 0 && errno != EAGAIN) return Sent::failed;
    if (sent < 0) sent = 0;
    keep(fd, bytes + sent, length - static_cast<size_t>(sent));
    return Sent::kept;  // a partial send, like EAGAIN, promises an edge when there is room again (epoll(7))
  }

  // Behind what is kept already, if there is any. Not inlined: it would take the hot path's registers.
  [[gnu::noinline]] void keep(int fd, const char* bytes, size_t length) {
    Conn& conn = conns_[fd];
    conn.rest = static_cast<char*>(std::realloc(conn.rest, conn.length + length));
    if (conn.rest == nullptr) die("realloc");
    std::memcpy(conn.rest + conn.length, bytes, length);
    conn.length += static_cast<uint32_t>(length);
    if (!conn.outArmed) armOut(fd);
  }

  Sent sendRest(int fd) {
    Conn& conn = conns_[fd];
    while (conn.offset < conn.length) {
      const ssize_t sent = send(fd, conn.rest + conn.offset, conn.length - conn.offset, MSG_NOSIGNAL);
      if (sent >= 0) {
        conn.offset += static_cast<uint32_t>(sent);
      } else if (errno == EAGAIN) {
        return Sent::kept;
      } else if (errno != EINTR) {
        return Sent::failed;
      }
    }
    std::free(conn.rest);
    conn.rest = nullptr;
    conn.offset = conn.length = 0;
    return Sent::all;
  }

  // EPOLLOUT stays armed from now on: a connection that filled its send buffer once will do so again, and
  // edge-triggered it costs nothing while idle. Modifying a registration reports room that appeared since the send.
  void armOut(int fd) {
    control(EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    conns_[fd].outArmed = true;
  }

  [[gnu::noinline]] void close(int fd) {
    std::free(conns_[fd].rest);
    conns_[fd] = Conn{};
    ::close(fd);  // leaves the epoll set by itself: the descriptor is never duplicated
  }

  Conn* conns_ = nullptr;
  // At a page, as everything that receives much here: load_net.h says why.
  alignas(4096) char buffer_[kReadBytes];

 private:
  App& app() { return static_cast<App&>(*this); }

  void control(int operation, int fd, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (epoll_ctl(epoll_, operation, fd, &event) != 0) die("epoll_ctl");
  }

  void acceptAll() {
    for (;;) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EAGAIN) return;
        if (errno == EINTR || errno == ECONNABORTED) continue;
        die("accept4");  // EMFILE above all: a benchmark that lacks descriptors must fail, not limp
      }
      if (static_cast<size_t>(fd) >= connLimit_) {
        errno = EMFILE;
        die("accept4");
      }
      conns_[fd] = Conn{};
      control(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
      app().onOpen(fd);
    }
  }

  int epoll_ = -1;
  int listener_ = -1;
  int signals_ = -1;
  const char* path_;
  const size_t connLimit_;
};

}  // namespace edgewire::bench
