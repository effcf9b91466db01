// edgewire-floor: the least a single-threaded TCP server can do on Linux, and so the yardstick of every benchmark here.
// No abstraction, no fairness, no more than one deadline: accept4, recv, send and edge-triggered epoll, the way one would
// write it in C. What another server costs above this is the price of its features and of its language.
//
// Linux only (epoll, accept4, signalfd).
//
//   edgewire-floor --port 0 [--host 127.0.0.1]      prints "listening on 127.0.0.1:PORT"
//   edgewire-floor --path SOCKET                    prints "listening on SOCKET"
//   ... --app echo | deadline | fanout | lines | frames | sink | source
//
// SIGTERM or SIGINT ends it with status 0; bad options end it with 2, a failing system call with 1.
//
//   floor_main.cc      the options, and the app that they ask for
//   floor_listen.cc    the listening socket, the signals, the limit of descriptors
//   floor_loop.h       accept, wait, send: what all apps do, compiled once for each so that none pays for another
//   floor_echo.cc      echo, and echo with a deadline that every message sets anew
//   floor_fanout.cc    what one connection sends goes to many
//   floor_requests.cc  lines and frames
//   floor_transfer.cc  sink and source
#pragma once

#include <cstddef>

namespace edgewire::bench {

struct Config {
  const char* host = "127.0.0.1";
  const char* path = nullptr;
  long port = -1;
  long deadlineSeconds = 30;
};

// Each serves until SIGTERM or SIGINT.
void serveEcho(const Config& config);
void serveDeadline(const Config& config);
void serveFanout(const Config& config);
void serveLines(const Config& config);
void serveFrames(const Config& config);
void serveSink(const Config& config);
void serveSource(const Config& config);

int openListener(const Config& config);  // also says where it listens
int openSignals();                       // readable when the server is to end
size_t raiseFdLimit();                   // the number of descriptors that there can be

[[noreturn]] void die(const char* what);  // a system call has failed: see errno
[[noreturn]] void usage(const char* problem);

}  // namespace edgewire::bench
