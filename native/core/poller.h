// The poller: six functions over the system's readiness queue (open, add, remove, wait, wake, close), and two more for
// the one driver that waits in another queue's place. poller_epoll.cc or poller_kqueue.cc implements them; binding.gyp
// chooses the file.
//
// What a caller may rely on
//   - add() registers both directions at once, edge-triggered, for the descriptor's whole life. There is no modify:
//     to stop reading is not to read.
//   - A readiness that exists when add() is called is reported by the next wait().
// What a caller may not assume
//   - An event is a hint: the call it suggests may still answer EAGAIN.
//   - One token may appear more than once in a batch (kqueue reports each direction by itself).
//   - A token of a descriptor that was closed meanwhile may still appear once; the generation in it tells.
//   - Events say what is ready since the last edge, not what is ready: remember it until EAGAIN, or until a short read
//     or write that came without a hangup (epoll(7), "Questions and answers", 9).
#pragma once

#include <cstdint>
#include <utility>

namespace edgewire {

constexpr uint8_t kReadable = 1;
constexpr uint8_t kWritable = 2;
constexpr uint8_t kHangup = 4;   // the peer has sent its FIN; bytes may lie before it
constexpr uint8_t kBroken = 8;   // an error is pending on the socket, or only something in its error queue
constexpr uint8_t kUrgent = 16;  // TCP urgent data: a read stops at it, short, with more behind it

struct PollEvent {
  uint64_t token;
  uint8_t ready;  // kReadable | kWritable | kHangup | kBroken | kUrgent
};

class Poller {
 public:
  static constexpr int kEventsPerWait = 512;
  // The tokens that wake(), the other queue and the alarm produce; wait() keeps them to itself.
  static constexpr uint64_t kWakeToken = UINT64_MAX;
  static constexpr uint64_t kOtherQueueToken = UINT64_MAX - 1;
  static constexpr uint64_t kAlarmToken = UINT64_MAX - 2;

  Poller() = default;
  ~Poller() { close(); }
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  int open() noexcept;  // 0 or -errno
  int add(int fd, uint64_t token) noexcept;
  // Must be called before the descriptor is closed when another descriptor of the same open file may stay behind
  // (an inherited listener); a socket whose only descriptor is closed leaves the queue by itself.
  int remove(int fd) noexcept;
  // Up to `capacity` (at most kEventsPerWait) events into `events`. timeout_ms: 0 returns at once, -1 waits.
  // Returns their number, 0 also when a signal came, or -errno.
  int wait(PollEvent* events, int capacity, int timeout_ms) noexcept;
  // Makes a wait() in another thread return. Callable from any thread.
  int wake() noexcept;
  void close() noexcept;

  // The descriptor of another queue, at most one: while it is readable, every wait() returns at once and says so in
  // other_queue_ready(). Not an edge: whoever serves that queue may leave something in it. remove() ends it.
  int add_other_queue(int fd) noexcept;
  // What the last wait() found. A hint, as all that it finds; an event list that was full may have hidden it once.
  bool other_queue_ready() const noexcept { return other_queue_ready_; }

  // So long from now, once, the wait() that is under way then, or the next one, returns, and take_alarm() says so. Setting
  // it again replaces it. For many short waits it is cheaper than a limit to each: that starts and stops a timer of the
  // kernel's every time. after_ms: at least 1. 0 or -errno; -ENOSYS where no driver needs it (kqueue).
  int set_alarm(int after_ms) noexcept;
  // Has it rung since it was set? True once.
  bool take_alarm() noexcept { return std::exchange(alarm_rang_, false); }

  // The queue's own descriptor, which is readable while wait(0) would return something. -1 when closed.
  int fd() const noexcept { return fd_; }

 private:
  int fd_ = -1;
  int wake_fd_ = -1;
  int alarm_fd_ = -1;  // made by the first set_alarm()
  bool other_queue_ready_ = false;
  bool alarm_rang_ = false;
};

}  // namespace edgewire
