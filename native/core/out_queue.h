// Output that the kernel did not take at once: per connection a list of segments, oldest first.
//
// A segment's bytes lie in one of two places:
//   chunk   a span of a slab chunk; the segment holds one reference on the chunk
//   pinned  memory of a JavaScript buffer that the host keeps alive until unpin(); asked for anew before every send,
//           because JavaScript may have detached or shrunk it meanwhile
//
// Segment nodes come from one growing array with a free list: no allocation once it has its size.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "core/conn.h"
#include "core/slab.h"

namespace edgewire {

// Who keeps JavaScript buffers alive that are sent by reference.
class PinSource {
 public:
  virtual ~PinSource() = default;
  // The bytes of pin `id` as they are now; nullptr when they are gone (detached).
  virtual const uint8_t* pinned(uint32_t id, size_t* bytes) noexcept = 0;
  virtual void unpin(uint32_t id) noexcept = 0;
};

class OutQueues {
 public:
  OutQueues(SlabPool& pool, PinSource& pins) : pool_(pool), pins_(pins) {}

  // Copies `bytes` into chunks. False when the pool has none left above `reserve_bytes`; what was copied until then
  // stays queued, and the caller gives the connection up.
  bool append_copy(Conn& conn, const uint8_t* data, size_t bytes, uint64_t reserve_bytes) noexcept;
  // Queues a span of a chunk in use; takes a reference of its own.
  void append_span(Conn& conn, ChunkId chunk, uint32_t offset, uint32_t bytes) noexcept;
  // Queues a pinned buffer's bytes from `offset` on; unpins it when they are sent or dropped.
  void append_pinned(Conn& conn, uint32_t id, uint32_t offset, uint32_t bytes) noexcept;

  // Describes the oldest bytes, at most `pieces_max` pieces and `bytes_max` bytes. 0 with *lost when a pinned buffer
  // is gone or has shrunk: those bytes can never be sent.
  int gather(const Conn& conn, iovec* pieces, int pieces_max, size_t bytes_max, bool* lost) const noexcept;
  // The kernel took `bytes`.
  void consume(Conn& conn, size_t bytes) noexcept;
  void drop_all(Conn& conn) noexcept;

  // Lets go of the chunk that copies are being packed into. Call when nothing is queued any more.
  void release_cursor() noexcept;
  uint64_t queued_bytes() const noexcept { return queued_bytes_; }
  size_t capacity() const noexcept { return segments_.capacity(); }

 private:
  enum class Kind : uint8_t { kChunk, kPinned };
  struct Segment {
    uint32_t next;
    uint32_t source;  // chunk or pin id
    uint32_t offset;
    uint32_t bytes;
    Kind kind;
  };

  void append(Conn& conn, Kind kind, uint32_t source, uint32_t offset, uint32_t bytes) noexcept;
  void release(const Segment& segment) noexcept;
  void pop_front(Conn& conn) noexcept;

  SlabPool& pool_;
  PinSource& pins_;
  std::vector<Segment> segments_;
  uint32_t free_ = kNoIndex;
  // Copies of all connections are packed one behind the other, so that a hundred stalled connections with a few bytes
  // each do not hold a chunk each.
  ChunkId cursor_ = kNoChunk;
  uint32_t cursor_used_ = 0;
  uint64_t queued_bytes_ = 0;
};

}  // namespace edgewire
