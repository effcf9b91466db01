// edgewire-load: what its files share. The generator is one thread on one epoll instance (Linux only); it keeps every
// loop closed (a new message starts only when an old one has come back) and compares every byte that it receives.
//
//   load_main.cc    the options, and the mode that they ask for
//   load_echo.cc    connections that stay and keep messages in flight; also opens the connections of the idle mode
//   load_churn.cc   connect, (echo,) close, again and again
//   load_idle.cc    opens connections and holds them, so that somebody can look at the server's memory
//   load_stats.cc   histogram, the server's CPU clock, the phases of a trial, the JSON line
//   load_net.h      sockets; load_pattern.h: the bytes that are sent and expected
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace edgewire::bench {

enum class Mode {
  echo,       // connections stay open
  churn,      // connect, one message there and back, close
  openClose,  // connect, FIN, wait for the server's FIN
  idle,       // open, one message each, hold until stdin ends or SIGTERM
};

struct Options {
  Mode mode = Mode::echo;
  std::string host = "127.0.0.1";
  uint16_t port = 0;
  std::string path;  // a Unix socket; empty: TCP
  int connections = 64;
  size_t size = 64;  // bytes of a message
  int depth = 1;     // messages in flight per connection (echo)
  double seconds = 2;
  double warmup = 0.5;
  pid_t serverPid = 0;  // whose CPU time is measured; 0: nobody's
};

// Each runs a mode to its end and returns the exit status. Whatever the server does wrong ends the process (see fail()).
int runEcho(const Options& options);
int runChurn(const Options& options);
int runIdle(const Options& options);

// The server, or this machine, did something that makes the measurement worthless: says so on stderr and exits with 1.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

// An option makes no sense: says so on stderr and exits with 2.
[[noreturn, gnu::format(printf, 1, 2)]] void badOption(const char* format, ...);

}  // namespace edgewire::bench
