// What a connection that stays sends, and what it expects back: a stream of requests and a stream of replies, made of
// messages of fixed sizes. A server may answer in pieces of any size, so both are checked as streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "load.h"
#include "load_pattern.h"

namespace edgewire::bench {

class Protocol {
 public:
  // echo: the bytes themselves. lines: "ECHO payload\n" and "+payload\n". frames: a big-endian length and that many
  // bytes, both ways. `size` is that of the payload.
  explicit Protocol(const Options& options);

  size_t requestSize() const { return requestSize_; }
  size_t replySize() const { return replySize_; }
  const Pattern& requests() const { return *requests_; }
  const Pattern& replies() const { return *replies_; }

  // How many bytes of replies a server may have sent that was sent this many bytes of requests. A line or a frame is
  // answered when it is complete, an echo may begin with the first byte.
  uint64_t repliesTo(uint64_t sent) const { return wholeRequests_ ? sent / requestSize_ * replySize_ : sent; }

 private:
  void makeTables(const Options& options);

  size_t requestSize_;
  size_t replySize_;
  bool wholeRequests_;
  std::shared_ptr<const Pattern> requests_;
  std::shared_ptr<const Pattern> replies_;  // of an echo the same table, which keeps it in the cache
};

}  // namespace edgewire::bench
