// The fuzzer's input, read from both ends: the program from the front, the kernel's moods from the back. So a mutation
// of the one does not change the meaning of the other. Where they meet, the program is over and nothing more goes wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace edgewire::fuzz {

[[noreturn]] inline void fail(const char* what, const char* file, int line) {
  std::fprintf(stderr, "reactor_fuzz: %s (%s:%d)\n", what, file, line);
  std::abort();
}

// What the reactor has promised to its host, or owes the kernel.
#define EXPECT(condition, what) \
  ((condition) ? static_cast<void>(0) : ::edgewire::fuzz::fail(what ": " #condition, __FILE__, __LINE__))

class Script {
 public:
  Script(const uint8_t* data, size_t bytes) : data_(data), front_(0), back_(bytes) {}

  bool over() const { return front_ >= back_; }
  uint8_t next() { return over() ? 0 : data_[front_++]; }
  uint8_t mood() { return over() ? 0 : data_[--back_]; }
  // Leaves nothing: from here on all goes well.
  void stop() { front_ = back_; }

  uint32_t below(uint32_t limit) { return limit == 0 ? 0 : next() % limit; }
  // A byte count: the small ones exactly, the large ones around the powers of two up to 256 KiB.
  uint32_t size() {
    const uint8_t value = next();
    if (value < 0x80) return value;
    const uint32_t power = uint32_t{1} << (7 + (value & 0x7f) / 11);
    return power - 5 + (value & 0x7f) % 11;
  }
  int32_t word() {
    const uint8_t value = next();
    constexpr int32_t kEdges[] = {INT32_MIN, INT32_MIN + 1, -2, -1, 0, 1, 0xffff, 0x10000, 0x7fff0000, INT32_MAX};
    constexpr uint8_t kEdgesFrom = 0xf0;
    if (value >= kEdgesFrom) return kEdges[(value - kEdgesFrom) % (sizeof kEdges / sizeof kEdges[0])];
    return value < 0x80 ? value : static_cast<int32_t>(uint32_t{value} << 16 | uint32_t{next()} << 8 | next());
  }

 private:
  const uint8_t* data_;
  size_t front_;
  size_t back_;
};

}  // namespace edgewire::fuzz
