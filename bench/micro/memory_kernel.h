// The system calls of a server whose network is a few counters: what a peer sends is a number of bytes, what it is sent
// is added up, and nothing is copied. The same calls give the same answers in every run, so instructions can be counted.
// It has no errors and no short writes; test/fuzz has a kernel for those.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstdint>
#include <vector>

#include "core/sys.h"

namespace edgewire::bench {

enum class Call : uint8_t { kEpollWait, kEpollCtl, kAccept, kRecv, kSend, kClose, kOther, kClock };
constexpr size_t kCalls = 8;

class MemoryKernel {
 public:
  MemoryKernel();
  ~MemoryKernel();
  MemoryKernel(const MemoryKernel&) = delete;
  MemoryKernel& operator=(const MemoryKernel&) = delete;

  // ---- what the peers do ----------------------------------------------------------------------------------------------

  void connect() noexcept;
  void send_to(int fd, uint64_t bytes) noexcept;
  void send_fin_to(int fd) noexcept;
  void advance_clock(uint64_t ns) noexcept { now_ns_ += ns; }

  uint64_t taken_bytes() const noexcept { return taken_bytes_; }  // from the server, over all connections
  uint64_t calls(Call call) const noexcept { return calls_[static_cast<size_t>(call)]; }
  double now_ms() const noexcept { return static_cast<double>(now_ns_) / 1e6; }

 private:
  struct File {
    uint64_t token = 0;
    uint64_t unread_bytes = 0;
    uint32_t edge = 0;  // of epoll, not collected yet
    bool fin = false;
  };

  static void count(Call call) noexcept { active_->calls_[static_cast<size_t>(call)]++; }
  // The table of system calls, by what they are about.
  static void install_poller() noexcept;
  static void install_opening() noexcept;
  static void install_traffic() noexcept;
  int open() noexcept;
  void raise_edge(int fd, uint32_t bits) noexcept;
  int collect(epoll_event* events, int capacity) noexcept;
  ssize_t receive(int fd, size_t bytes) noexcept;

  static inline MemoryKernel* active_ = nullptr;

  std::vector<File> files_;
  std::vector<int> free_;
  std::vector<int> edges_;  // descriptors with an edge, oldest first
  std::array<uint64_t, kCalls> calls_{};
  uint64_t taken_bytes_ = 0;
  uint64_t now_ns_ = 1'000'000'000'000;
  uint32_t pending_ = 0;  // connections to accept
  int listener_ = -1;
};

}  // namespace edgewire::bench
