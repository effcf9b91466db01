// A connection of the model kernel, both ends, and the bytes that flow in it.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace edgewire::fuzz {

// Endless bytes without a short period; a stream begins somewhere in them.
class Pattern {
 public:
  static constexpr size_t kPeriod = 65521;         // a prime: no power of two brings the same bytes to the same place
  static constexpr size_t kStretch = 1024 * 1024;  // so many bytes lie behind one another

  static const uint8_t* at(uint64_t stream, uint64_t position) {
    return bytes() + (stream * 7919 + position) % kPeriod;
  }

 private:
  static const uint8_t* bytes() {
    static const std::vector<uint8_t> all = [] {
      std::vector<uint8_t> made(kStretch + kPeriod);
      uint32_t state = 1;
      for (size_t i = 0; i < kPeriod; i++) {
        state = state * 1664525 + 1013904223;
        made[i] = static_cast<uint8_t>(state >> 24);
      }
      for (size_t i = kPeriod; i < made.size(); i++) made[i] = made[i - kPeriod];
      return made;
    }();
    return all.data();
  }
};

// What the host has commanded to send, as pieces of patterns, and how far the kernel has taken it.
class Output {
 public:
  void append(uint64_t stream, uint64_t position, uint64_t count) {
    pieces_.push_back({stream, position, count});
    written_ += count;
  }
  // False when these are not the next bytes.
  bool take(const void* data, uint64_t count) {
    const auto* from = static_cast<const uint8_t*>(data);
    if (count > written_ - sent_) return false;
    sent_ += count;
    while (count > 0) {
      Piece& piece = pieces_[next_];
      const uint64_t step = std::min(count, piece.count);
      if (std::memcmp(from, Pattern::at(piece.stream, piece.position), step) != 0) return false;
      from += step;
      count -= step;
      piece.position += step;
      piece.count -= step;
      if (piece.count == 0) next_++;
    }
    return true;
  }
  uint64_t written() const { return written_; }

 private:
  struct Piece {
    uint64_t stream;
    uint64_t position;
    uint64_t count;
  };
  std::vector<Piece> pieces_;
  size_t next_ = 0;
  uint64_t written_ = 0;
  uint64_t sent_ = 0;
};

// A connection, both ends.
struct Socket {
  uint32_t id = 0;
  int fd = -1;  // the reactor's end; -1: not accepted yet, or closed
  int family = AF_INET;
  bool dialing = false;  // the handshake is not over
  bool gone = false;     // the reactor has closed its end

  // To the reactor.
  uint64_t peer_sent = 0;
  uint64_t read = 0;
  uint64_t urgent_at = UINT64_MAX;
  bool peer_fin = false;
  bool reset = false;
  int error = 0;  // SO_ERROR

  // From it.
  Output output;
  uint64_t sent = 0;      // bytes taken
  uint64_t acked = 0;     // bytes that the peer has read
  uint64_t room = 65536;  // send buffer
  bool is_full = false;   // met its border: an edge is due when there is room again
  bool fin_sent = false;
  bool unpredictable = false;  // the host wrote what no caller may: no bytes can be expected
};

}  // namespace edgewire::fuzz
