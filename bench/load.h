// edgewire-load: what its files share. The generator is one thread on one epoll instance (Linux only). Its loops are
// closed (a new message starts only when an old one has come back) unless --rate opens them, and it compares every byte
// that it receives.
//
//   load_main.cc      the options, and the mode that they ask for
//   load_echo.cc      connections that stay and keep messages in flight; also opens the connections of the idle mode
//   load_rate.cc      the same at a fixed rate
//   load_churn.cc     connect, (echo,) close, again and again, each loop for itself or all at once
//   load_fanout.cc    one connection publishes, all others receive
//   load_transfer.cc  large transfers in one direction
//   load_idle.cc      opens connections and holds them, so that somebody can look at the server's memory
//   load_stats.cc     histogram, the phases of a trial, the JSON line; load_server.cc: the server's CPU time and memory
//   load_protocol.cc  lines and frames as streams of bytes; load_pattern.h: the bytes that are sent and expected
//   load_net.h        sockets
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace edgewire::bench {

enum class Mode {
  echo,       // connections stay open
  lines,      // the same with "ECHO payload\n" and "+payload\n"
  frames,     // the same with frames that a length begins
  churn,      // connect, one message there and back, close
  openClose,  // connect, FIN, wait for the server's FIN
  burst,      // all connect at once, one message each, then all close
  fanout,     // one message goes to all subscribers
  sink,       // the server takes bytes, and counts them
  source,     // the server gives bytes
  idle,       // open, one message each, hold until stdin ends or SIGTERM
};

struct Options {
  Mode mode = Mode::echo;
  std::string host = "127.0.0.1";
  uint16_t port = 0;
  std::string path;     // a Unix socket; empty: TCP
  int connections = 0;  // 0 until the mode's default is filled in
  size_t size = 0;      // bytes of a message, or of a transfer; 0 likewise
  int depth = 1;        // messages in flight per connection (echo, lines, frames)
  uint64_t rate = 0;    // messages a second over all connections; 0: a closed loop
  int idle = 0;         // further connections that are silent
  int stalled = 0;      // further connections that send and do not read
  int publishers = 1;
  double seconds = 2;
  double warmup = 0.5;
  pid_t serverPid = 0;  // whose CPU time and memory are measured; 0: nobody's
};

// Each runs a mode to its end and returns the exit status. Whatever the server does wrong ends the process (see fail()).
int runEcho(const Options& options);
int runChurn(const Options& options);
int runFanout(const Options& options);
int runTransfer(const Options& options);
int runIdle(const Options& options);

// The server, or this machine, did something that makes the measurement worthless: says so on stderr and exits with 1.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

// An option makes no sense: says so on stderr and exits with 2.
[[noreturn, gnu::format(printf, 1, 2)]] void badOption(const char* format, ...);

}  // namespace edgewire::bench
