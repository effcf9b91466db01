#include "core/out_queue.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"

namespace edgewire {

void OutQueues::append(Conn& conn, Kind kind, uint32_t source, uint32_t offset, uint32_t bytes) noexcept {
  uint32_t node = free_;
  if (node == kNoIndex) {
    node = static_cast<uint32_t>(segments_.size());
    segments_.emplace_back();
  } else {
    free_ = segments_[node].next;
  }
  segments_[node] = Segment{kNoIndex, source, offset, bytes, kind};
  if (conn.out_last == kNoIndex) {
    conn.out_first = node;
  } else {
    segments_[conn.out_last].next = node;
  }
  conn.out_last = node;
  conn.out_bytes += bytes;
  if (kind == Kind::kChunk) conn.out_chunk_bytes += bytes;
  queued_bytes_ += bytes;
}

bool OutQueues::append_copy(Conn& conn, const uint8_t* data, size_t bytes, uint64_t reserve_bytes) noexcept {
  while (bytes > 0) {
    if (cursor_ == kNoChunk || cursor_used_ == kChunkBytes) {
      release_cursor();
      if (pool_.available_bytes() < reserve_bytes + kChunkBytes) return false;
      cursor_ = pool_.acquire();
      if (cursor_ == kNoChunk) return false;
    }
    uint32_t count = static_cast<uint32_t>(std::min<size_t>(bytes, kChunkBytes - cursor_used_));
    std::memcpy(pool_.data(cursor_) + cursor_used_, data, count);
    Segment* last = conn.out_last == kNoIndex ? nullptr : &segments_[conn.out_last];
    if (last != nullptr && last->kind == Kind::kChunk && last->source == cursor_ &&
        last->offset + last->bytes == cursor_used_) {
      last->bytes += count;
      conn.out_bytes += count;
      conn.out_chunk_bytes += count;
      queued_bytes_ += count;
    } else {
      pool_.retain(cursor_);
      append(conn, Kind::kChunk, cursor_, cursor_used_, count);
    }
    cursor_used_ += count;
    data += count;
    bytes -= count;
  }
  return true;
}

void OutQueues::append_span(Conn& conn, ChunkId chunk, uint32_t offset, uint32_t bytes) noexcept {
  pool_.retain(chunk);
  append(conn, Kind::kChunk, chunk, offset, bytes);
}

void OutQueues::append_pinned(Conn& conn, uint32_t id, uint32_t offset, uint32_t bytes) noexcept {
  append(conn, Kind::kPinned, id, offset, bytes);
}

int OutQueues::gather(const Conn& conn, iovec* pieces, int pieces_max, size_t bytes_max, bool* lost) const noexcept {
  int count = 0;
  size_t total = 0;
  for (uint32_t node = conn.out_first; node != kNoIndex && count < pieces_max && total < bytes_max;
       node = segments_[node].next) {
    const Segment& segment = segments_[node];
    const uint8_t* base;
    if (segment.kind == Kind::kChunk) {
      base = pool_.data(segment.source);
    } else {
      size_t size = 0;
      base = pins_.pinned(segment.source, &size);
      if (base == nullptr || size < size_t{segment.offset} + segment.bytes) {
        // What lies before it is still good: it goes out first, and the next call meets the gap at the front.
        *lost = count == 0;
        return count;
      }
    }
    size_t bytes = std::min<size_t>(segment.bytes, bytes_max - total);
    pieces[count].iov_base = const_cast<uint8_t*>(base) + segment.offset;
    pieces[count].iov_len = bytes;
    total += bytes;
    count++;
  }
  return count;
}

void OutQueues::release(const Segment& segment) noexcept {
  if (segment.kind == Kind::kChunk) {
    pool_.release(segment.source);
  } else {
    pins_.unpin(segment.source);
  }
}

void OutQueues::pop_front(Conn& conn) noexcept {
  uint32_t node = conn.out_first;
  release(segments_[node]);
  conn.out_first = segments_[node].next;
  if (conn.out_first == kNoIndex) conn.out_last = kNoIndex;
  segments_[node].next = free_;
  free_ = node;
}

void OutQueues::consume(Conn& conn, size_t bytes) noexcept {
  EDGEWIRE_CHECK(bytes <= conn.out_bytes);
  conn.out_bytes -= bytes;
  queued_bytes_ -= bytes;
  while (bytes > 0) {
    Segment& segment = segments_[conn.out_first];
    uint32_t taken = static_cast<uint32_t>(std::min<size_t>(bytes, segment.bytes));
    if (segment.kind == Kind::kChunk) conn.out_chunk_bytes -= taken;
    if (bytes < segment.bytes) {
      segment.offset += static_cast<uint32_t>(bytes);
      segment.bytes -= static_cast<uint32_t>(bytes);
      return;
    }
    bytes -= segment.bytes;
    pop_front(conn);
  }
}

void OutQueues::drop_all(Conn& conn) noexcept {
  queued_bytes_ -= conn.out_bytes;
  conn.out_bytes = 0;
  conn.out_chunk_bytes = 0;
  while (conn.out_first != kNoIndex) pop_front(conn);
}

void OutQueues::release_cursor() noexcept {
  if (cursor_ != kNoChunk) pool_.release(cursor_);
  cursor_ = kNoChunk;
  cursor_used_ = 0;
}

}  // namespace edgewire
