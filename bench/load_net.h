// Sockets for the load generator: a descriptor that closes itself, and a dialer that does not run out of ports.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <utility>

#include "load.h"

namespace edgewire::bench {

inline uint64_t nowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

// Memory to receive into. It begins at a page: a copy by the kernel to a place a little behind its source, counted in the
// low 12 bits of both, is several times as slow on some processors, and the generator would be what limits the server.
class ReceiveBuffer {
 public:
  static constexpr size_t kPageBytes = 4096;
  // `size`: whole pages.
  explicit ReceiveBuffer(size_t size)
      : bytes_(static_cast<uint8_t*>(std::aligned_alloc(kPageBytes, size)), std::free), size_(size) {
    if (bytes_ == nullptr) fail("no memory for %zu bytes", size);
  }
  uint8_t* data() { return bytes_.get(); }
  size_t size() const { return size_; }
  uint8_t operator[](size_t index) const { return bytes_[index]; }

 private:
  std::unique_ptr<uint8_t[], decltype(&std::free)> bytes_;
  size_t size_;
};

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() { reset(); }
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

// Room for `connections` descriptors and a few of our own. A soft limit is raised; root may raise the hard one, too.
inline void raiseFdLimit(int connections) {
  const rlim_t wanted = static_cast<rlim_t>(connections) + 64;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted) return;
  const rlimit raised{wanted, std::max(wanted, limit.rlim_max)};
  if (setrlimit(RLIMIT_NOFILE, &raised) != 0) {
    fail("%d connections need %ju file descriptors; the limit is %ju", connections, static_cast<uintmax_t>(wanted),
         static_cast<uintmax_t>(limit.rlim_max));
  }
}

class Poller {
 public:
  Poller() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_.get() < 0) fail("epoll_create1: %s", std::strerror(errno));
  }
  int fd() const { return epoll_.get(); }

  // Both directions, edge-triggered, once for the descriptor's whole life.
  void add(const Fd& fd, uint64_t token) {
    control(EPOLL_CTL_ADD, fd, token, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
  }
  // One direction at a time, level-triggered: one call to send or recv for each event, so that connections that could
  // go on forever take turns.
  void addLevel(const Fd& fd, uint64_t token, uint32_t events) { control(EPOLL_CTL_ADD, fd, token, events); }
  void setLevel(const Fd& fd, uint64_t token, uint32_t events) { control(EPOLL_CTL_MOD, fd, token, events); }

  // Calls handle(token, events) for what is ready; waits for at most timeoutMs.
  template <typename Handle>
  void poll(int timeoutMs, Handle&& handle) {
    const int count = epoll_wait(epoll_.get(), events_, kEventsPerWait, timeoutMs);
    if (count < 0 && errno != EINTR) fail("epoll_wait: %s", std::strerror(errno));
    for (int i = 0; i < count; i++) handle(events_[i].data.u64, events_[i].events);
  }

 private:
  void control(int operation, const Fd& fd, uint64_t token, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    if (epoll_ctl(epoll_.get(), operation, fd.get(), &event) != 0) fail("epoll_ctl: %s", std::strerror(errno));
  }

  static constexpr int kEventsPerWait = 512;
  Fd epoll_;
  epoll_event events_[kEventsPerWait];
};

// Opens non-blocking connections to the server.
//
// A closed connection keeps its (source address, source port) for a minute (TIME_WAIT), and there are only some 28,000
// ephemeral ports to an address: a churn trial would use them up in seconds. On loopback every address of 127/8 is ours,
// so each connection takes the next of 249 source addresses. IP_BIND_ADDRESS_NO_PORT leaves the choice of the port to
// connect(), which may reuse one as long as the whole four-tuple is new. (SO_LINGER 0 would avoid TIME_WAIT as well,
// but it sends RST, and the server is to see an orderly FIN.)
class Dialer {
 public:
  explicit Dialer(const Options& options) { options.path.empty() ? resolveTcp(options) : resolveUnix(options); }

  // A descriptor that is connected or will report writability when it is. `small`: for connections that stall, whose
  // full buffers take the kernel's memory from those that are measured.
  Fd dial(bool small = false) {
    Fd fd(socket(address_.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd.get() < 0) fail("socket: %s", std::strerror(errno));
    if (small) shrink(fd);
    if (address_.ss_family == AF_UNIX) {
      connectUnix(fd);
    } else {
      connectTcp(fd);
    }
    return fd;
  }

 private:
  static constexpr uint32_t kFirstSource = 0x7f000002;  // 127.0.0.2
  static constexpr uint32_t kSources = 249;             // to 127.0.0.250
  static constexpr int kUnixConnectSeconds = 5;
  static constexpr int kSmallSendBytes = 16 * 1024;
  static constexpr int kSmallReceiveBytes = 4 * 1024;
  static constexpr int kEthernetSegment = 1460;

  void resolveTcp(const Options& options) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int problem = getaddrinfo(options.host.c_str(), std::to_string(options.port).c_str(), &hints, &found);
    if (problem != 0) badOption("--host %s: %s.", options.host.c_str(), gai_strerror(problem));
    std::memcpy(&address_, found->ai_addr, found->ai_addrlen);
    length_ = found->ai_addrlen;
    freeaddrinfo(found);
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address_);
    spread_ = address_.ss_family == AF_INET && ntohl(v4->sin_addr.s_addr) >> 24 == 127;
  }

  void resolveUnix(const Options& options) {
    auto* address = reinterpret_cast<sockaddr_un*>(&address_);
    if (options.path.size() >= sizeof address->sun_path) badOption("--path is too long for a Unix socket.");
    address->sun_family = AF_UNIX;
    std::strcpy(address->sun_path, options.path.c_str());
    length_ = sizeof *address;
  }

  void connectTcp(const Fd& fd) {
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (spread_) bindNextSource(fd);
    setNonBlocking(fd);
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address_), length_) != 0 && errno != EINPROGRESS) {
      fail("connect: %s", std::strerror(errno));
    }
  }

  // A non-blocking connect to a Unix socket does not wait for room in the server's backlog (EAGAIN, and no event tells
  // when to try again). So it blocks here; the server accepts meanwhile, for it needs nothing from us.
  void connectUnix(const Fd& fd) {
    const timeval limit{kUnixConnectSeconds, 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address_), length_) != 0) {
      fail("connect: %s", errno == EAGAIN ? "the server accepts nothing" : std::strerror(errno));
    }
    setNonBlocking(fd);
  }

  // A small window also keeps the server's kernel from growing the buffers at its end. The segments are those of an
  // Ethernet: loopback's (64 KiB) would not fit, and a window without room for a whole one reopens by timers only.
  static void shrink(const Fd& fd) {
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &kSmallSendBytes, sizeof kSmallSendBytes);
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kSmallReceiveBytes, sizeof kSmallReceiveBytes);
    setsockopt(fd.get(), IPPROTO_TCP, TCP_MAXSEG, &kEthernetSegment, sizeof kEthernetSegment);
  }

  void bindNextSource(const Fd& fd) {
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    sockaddr_in source{};
    source.sin_family = AF_INET;
    source.sin_addr.s_addr = htonl(kFirstSource + next_++ % kSources);
    if (bind(fd.get(), reinterpret_cast<sockaddr*>(&source), sizeof source) != 0)
      fail("bind: %s", std::strerror(errno));
  }

  static void setNonBlocking(const Fd& fd) { fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) | O_NONBLOCK); }

  sockaddr_storage address_{};
  socklen_t length_ = 0;
  bool spread_ = false;
  uint32_t next_ = static_cast<uint32_t>(getpid());  // trials that follow each other begin at different addresses
};

}  // namespace edgewire::bench
