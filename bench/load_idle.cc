// Opens connections, prints "ready", and holds them until stdin ends or SIGTERM or SIGINT arrives.
#include <poll.h>
#include <sys/signalfd.h>

#include <csignal>
#include <cstdio>

#include "load_echo.h"

namespace edgewire::bench {
namespace {

Fd catchSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  Fd fd(signalfd(-1, &set, SFD_CLOEXEC));
  if (fd.get() < 0) fail("signalfd: %s", std::strerror(errno));
  return fd;
}

bool stdinEnded() {
  char ignored[256];
  const ssize_t got = read(STDIN_FILENO, ignored, sizeof ignored);
  return got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN);
}

}  // namespace

int runIdle(const Options& options) {
  Trial trial(options);
  EchoClients clients(options, trial);
  clients.openAll();
  const Fd signals = catchSignals();  // only now: while opening, a signal just ends the process
  std::puts("ready");
  std::fflush(stdout);

  // poll(2), because epoll refuses a stdin that is a file or /dev/null.
  pollfd watched[] = {{STDIN_FILENO, POLLIN, 0}, {signals.get(), POLLIN, 0}, {clients.pollFd(), POLLIN, 0}};
  for (;;) {
    if (::poll(watched, 3, -1) < 0 && errno != EINTR) fail("poll: %s", std::strerror(errno));
    if (watched[1].revents != 0) return 0;
    if (watched[0].revents != 0 && stdinEnded()) return 0;
    if (watched[2].revents != 0) clients.poll(0);
  }
}

}  // namespace edgewire::bench
