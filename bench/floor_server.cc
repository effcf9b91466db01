// edgewire-floor: the least a single-threaded TCP echo server can do on Linux, and so the yardstick of every benchmark
// here. No abstraction, no fairness, no deadlines: accept4, recv, send and edge-triggered epoll, the way one would write
// it in C. What another server costs above this is the price of its features and of its language.
//
// Linux only (epoll, accept4, signalfd).
//
//   edgewire-floor --port 0 [--host 127.0.0.1]      prints "listening on 127.0.0.1:PORT"
//   edgewire-floor --path SOCKET                    prints "listening on SOCKET"
//
// SIGTERM or SIGINT ends it with status 0; bad options end it with 2, a failing system call with 1.

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace edgewire::bench {
namespace {

constexpr size_t kReadBytes = 64 * 1024;  // one buffer for everybody: bytes never stay in it from one event to the next
constexpr int kEventsPerWait = 1024;
constexpr int kBacklog = 4096;
constexpr rlim_t kMaxFds = 1 << 20;  // RLIMIT_NOFILE may be "infinity"; the table below is one entry per descriptor

// What is kept for a connection. Indexed by descriptor, so that an idle connection costs its entry and nothing else.
struct Conn {
  char* rest;       // bytes that the kernel did not take, or nullptr; while there are any, nothing is read
  uint32_t offset;  // how much of `rest` has been sent since
  uint32_t length;
  bool outArmed;  // EPOLLOUT is part of the registration
};
static_assert(sizeof(Conn) == 24, "an idle connection is meant to cost 24 bytes");

struct Config {
  const char* host = "127.0.0.1";
  const char* path = nullptr;
  long port = -1;
};

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "edgewire-floor: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

[[noreturn]] void usage(const char* problem) {
  std::fprintf(stderr, "edgewire-floor: %s\nusage: edgewire-floor --port N [--host ADDRESS] | --path SOCKET\n",
               problem);
  std::exit(2);
}

class FloorServer {
 public:
  explicit FloorServer(const Config& config);
  void run();  // until SIGTERM or SIGINT

 private:
  void listenTcp(const Config& config);
  void listenUnix(const Config& config);
  void watchSignals();
  void add(int fd, uint32_t events);

  void acceptAll();
  void onEvent(int fd, uint32_t events);
  void echo(int fd, bool untilEmpty);
  bool sendOrKeep(int fd, size_t length);  // false: stop reading (blocked or closed)
  bool sendRest(int fd);                   // false: still blocked, or closed
  void armOut(int fd);
  void close(int fd);

  int epoll_ = -1;
  int listener_ = -1;
  int signals_ = -1;
  const char* path_ = nullptr;
  Conn* conns_ = nullptr;
  size_t connLimit_ = 0;
  char buffer_[kReadBytes];
};

FloorServer::FloorServer(const Config& config) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die("setrlimit");
  connLimit_ = std::min(limit.rlim_max, kMaxFds);
  // calloc takes this from mmap: a page becomes resident when a connection first uses it.
  conns_ = static_cast<Conn*>(std::calloc(connLimit_, sizeof(Conn)));
  if (conns_ == nullptr) die("calloc");

  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) die("epoll_create1");
  watchSignals();
  config.path != nullptr ? listenUnix(config) : listenTcp(config);
  add(listener_, EPOLLIN | EPOLLET);
}

void FloorServer::watchSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) die("sigprocmask");
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) die("signalfd");
  add(signals_, EPOLLIN);
}

void FloorServer::add(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

void FloorServer::listenTcp(const Config& config) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener_ < 0) die("socket");
  const int on = 1;
  setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // On Linux an accepted socket inherits this: one call here instead of one for each connection.
  setsockopt(listener_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(config.port));
  if (inet_pton(AF_INET, config.host, &address.sin_addr) != 1) usage("--host takes an IPv4 address.");
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("bind");
  if (listen(listener_, kBacklog) != 0) die("listen");
  socklen_t length = sizeof address;
  if (getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) die("getsockname");
  std::printf("listening on %s:%d\n", config.host, ntohs(address.sin_port));
  std::fflush(stdout);
}

void FloorServer::listenUnix(const Config& config) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(config.path) >= sizeof address.sun_path) usage("--path is too long for a Unix socket.");
  std::strcpy(address.sun_path, config.path);
  listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener_ < 0) die("socket");
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("bind");
  path_ = config.path;
  if (listen(listener_, kBacklog) != 0) die("listen");
  std::printf("listening on %s\n", config.path);
  std::fflush(stdout);
}

void FloorServer::run() {
  static epoll_event events[kEventsPerWait];
  for (;;) {
    const int count = epoll_wait(epoll_, events, kEventsPerWait, -1);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    // An event can never be stale here: epoll names a descriptor once per batch, and a connection is closed only while
    // its own event is being handled.
    for (int i = 0; i < count; i++) {
      const int fd = events[i].data.fd;
      if (fd == listener_) {
        acceptAll();
      } else if (fd == signals_) {
        if (path_ != nullptr) unlink(path_);
        return;
      } else {
        onEvent(fd, events[i].events);
      }
    }
  }
}

void FloorServer::acceptAll() {
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
    add(fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
  }
}

void FloorServer::onEvent(int fd, uint32_t events) {
  if (conns_[fd].rest != nullptr) {
    // Edges of the reading side that arrive while we are blocked are lost, so afterwards everything has to be read.
    if (sendRest(fd)) echo(fd, /*untilEmpty=*/true);
    return;
  }
  // An EPOLLOUT that comes alone reports room that nobody waits for.
  if (events & ~static_cast<uint32_t>(EPOLLOUT)) echo(fd, (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
}

// A read shorter than the buffer has emptied the socket, and whatever arrives afterwards makes a new edge. Only when a
// hangup has been reported already will no further edge come: then it is read until the end (or the error) shows.
void FloorServer::echo(int fd, bool untilEmpty) {
  for (;;) {
    const ssize_t got = recv(fd, buffer_, kReadBytes, 0);
    if (got > 0) {
      if (!sendOrKeep(fd, static_cast<size_t>(got))) return;
      if (static_cast<size_t>(got) < kReadBytes && !untilEmpty) return;
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    return close(fd);
  }
}

bool FloorServer::sendOrKeep(int fd, size_t length) {
  ssize_t sent;
  do {
    sent = send(fd, buffer_, length, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent == static_cast<ssize_t>(length)) return true;
  if (sent < 0 && errno != EAGAIN) return close(fd), false;
  if (sent < 0) sent = 0;

  Conn& conn = conns_[fd];
  conn.length = static_cast<uint32_t>(length - static_cast<size_t>(sent));
  conn.offset = 0;
  conn.rest = static_cast<char*>(std::malloc(conn.length));
  if (conn.rest == nullptr) die("malloc");
  std::memcpy(conn.rest, buffer_ + sent, conn.length);
  if (!conn.outArmed) armOut(fd);
  return false;  // a partial send, like EAGAIN, promises an edge when there is room again (epoll(7))
}

// EPOLLOUT stays armed from now on: a connection that filled its send buffer once will do so again, and edge-triggered
// it costs nothing while idle. Modifying a registration also reports room that appeared since the send.
void FloorServer::armOut(int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.fd = fd;
  if (epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) != 0) die("epoll_ctl");
  conns_[fd].outArmed = true;
}

bool FloorServer::sendRest(int fd) {
  Conn& conn = conns_[fd];
  while (conn.offset < conn.length) {
    const ssize_t sent = send(fd, conn.rest + conn.offset, conn.length - conn.offset, MSG_NOSIGNAL);
    if (sent >= 0) {
      conn.offset += static_cast<uint32_t>(sent);
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      return close(fd), false;
    }
  }
  std::free(conn.rest);
  conn.rest = nullptr;
  return true;
}

void FloorServer::close(int fd) {
  std::free(conns_[fd].rest);
  conns_[fd] = Conn{};
  ::close(fd);  // leaves the epoll set by itself: the descriptor is never duplicated
}

Config parse(int argc, char** argv) {
  static const option kOptions[] = {{"host", required_argument, nullptr, 'h'},
                                    {"port", required_argument, nullptr, 'p'},
                                    {"path", required_argument, nullptr, 's'},
                                    {nullptr, 0, nullptr, 0}};
  Config config;
  for (int c; (c = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    if (c == 'h') {
      config.host = optarg;
    } else if (c == 's') {
      config.path = optarg;
    } else if (c == 'p') {
      const char* end = optarg + std::strlen(optarg);
      const auto result = std::from_chars(optarg, end, config.port);
      if (result.ec != std::errc() || result.ptr != end || config.port < 0 || config.port > 65535) {
        usage("--port takes a number from 0 to 65535.");
      }
    } else {
      usage("an option is unknown or lacks its value.");
    }
  }
  if (optind != argc) usage("only options are taken.");
  if ((config.path != nullptr) == (config.port >= 0)) usage("give either --port or --path.");
  return config;
}

}  // namespace
}  // namespace edgewire::bench

int main(int argc, char** argv) {
  // Static, not on the stack: it holds the read buffer.
  static edgewire::bench::FloorServer server(edgewire::bench::parse(argc, argv));
  server.run();
  return 0;
}
