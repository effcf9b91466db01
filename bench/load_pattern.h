// The bytes that a connection sends and expects back. They depend on the connection and on the position in its stream,
// so that a byte lost, doubled, moved or delivered to the wrong connection is seen at once.
//
// All streams are windows into one table of noise whose period is a prime, hence no message size or buffer size divides
// it: checking is a memcmp, sending needs no copy, and neither competes with the server for memory bandwidth.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace edgewire::bench {

// xorshift64: any noise will do, the same in each run.
inline std::vector<uint8_t> makeNoise(size_t length) {
  std::vector<uint8_t> bytes(length);
  uint64_t state = 0x9e3779b97f4a7c15;
  for (uint8_t& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<uint8_t>(state >> 32);
  }
  return bytes;
}

class Pattern {
 public:
  static constexpr size_t kWindow = 256 * 1024;     // bytes that lie in one piece from any position on
  static constexpr size_t kNoisePeriod = 65521;     // the largest prime below 64 Ki
  static constexpr size_t kNoiseStreamStep = 7919;  // prime as well: 65521 streams before two are alike

  Pattern() : Pattern(makeNoise(kNoisePeriod), kNoiseStreamStep) {}

  // `bytes` again and again; each stream begins `streamStep` bytes behind the one before.
  Pattern(std::vector<uint8_t> bytes, size_t streamStep)
      : period_(bytes.size()), streamStep_(streamStep), bytes_(std::move(bytes)) {
    bytes_.resize(period_ + kWindow);
    for (size_t i = period_; i < bytes_.size(); i++) bytes_[i] = bytes_[i - period_];
  }

  // kWindow bytes of stream `stream`, from `position` on.
  const uint8_t* at(uint64_t stream, uint64_t position) const {
    return bytes_.data() + (stream * streamStep_ + position) % period_;
  }

  // The index of the first of `length` (at most kWindow) bytes that differs from the stream, or `length` if none does.
  size_t mismatch(uint64_t stream, uint64_t position, const uint8_t* got, size_t length) const {
    const uint8_t* expected = at(stream, position);
    if (std::memcmp(expected, got, length) == 0) return length;
    return static_cast<size_t>(std::mismatch(got, got + length, expected).first - got);
  }

 private:
  const size_t period_;
  const size_t streamStep_;
  std::vector<uint8_t> bytes_;
};

}  // namespace edgewire::bench
