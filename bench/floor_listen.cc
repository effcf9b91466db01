#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "floor.h"

namespace edgewire::bench {
namespace {

constexpr int kBacklog = 4096;
constexpr rlim_t kMaxFds = 1 << 20;  // RLIMIT_NOFILE may be "infinity"; the table of connections has an entry for each

int listenTcp(const Config& config) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener < 0) die("socket");
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // On Linux an accepted socket inherits this: one call here instead of one for each connection.
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(config.port));
  if (inet_pton(AF_INET, config.host, &address.sin_addr) != 1) usage("--host takes an IPv4 address.");
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("bind");
  if (listen(listener, kBacklog) != 0) die("listen");
  socklen_t length = sizeof address;
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0) die("getsockname");
  std::printf("listening on %s:%d\n", config.host, ntohs(address.sin_port));
  std::fflush(stdout);
  return listener;
}

int listenUnix(const Config& config) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (std::strlen(config.path) >= sizeof address.sun_path) usage("--path is too long for a Unix socket.");
  std::strcpy(address.sun_path, config.path);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener < 0) die("socket");
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("bind");
  if (listen(listener, kBacklog) != 0) die("listen");
  std::printf("listening on %s\n", config.path);
  std::fflush(stdout);
  return listener;
}

}  // namespace

int openListener(const Config& config) { return config.path != nullptr ? listenUnix(config) : listenTcp(config); }

int openSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) die("sigprocmask");
  const int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) die("signalfd");
  return signals;
}

size_t raiseFdLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die("setrlimit");
  return std::min(limit.rlim_max, kMaxFds);
}

}  // namespace edgewire::bench
