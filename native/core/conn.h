// One connection as the core sees it. Plain data: the reactor's phases move it, conn_table.h owns it.
#pragma once

#include <cstdint>

#include "core/sockaddr.h"

namespace edgewire {

constexpr uint32_t kNoIndex = UINT32_MAX;

// Who moves it where:
//
//   kFree --accept--------------------> kOpen --close--> kClosing --linger over--> kClosed --acknowledge--> kFree
//     \---dial---> kDialing --connected--^  \------------- error, abort, both FINs -----^
//                      \------------------------ refused, aborted ----------------------^
enum class ConnState : uint8_t {
  kFree,     // the index belongs to nobody
  kDialing,  // connect(2) is under way; writes queue up
  kOpen,     // bytes flow in the directions that `reading` and `writing` name
  kClosing,  // close() was asked for: output drains, then FIN, then the peer's FIN is awaited; input is discarded
  kClosed,   // the descriptor is gone; the index waits for JavaScript to see that
};

enum class ReadSide : uint8_t {
  kOpen,
  kEnded,  // the peer's FIN was read
};

enum class WriteSide : uint8_t {
  kOpen,
  kFinQueued,  // FIN goes out after what is queued
  kFinSent,
  kBroken,  // the kernel refused a write: the queue is gone; what lies unread is still delivered, then kClosed
};

// What a connection owes JavaScript; published in this order as the completion ring has room.
constexpr uint8_t kOweEnd = 1;
constexpr uint8_t kOweHangup = 2;
constexpr uint8_t kOweDrain = 4;
constexpr uint8_t kOweFlushed = 8;
constexpr uint8_t kOweReadTimeout = 16;
constexpr uint8_t kOweWriteTimeout = 32;
constexpr uint8_t kOweIdleTimeout = 64;

// Lists that a connection is on.
constexpr uint8_t kOnReadyList = 1;
constexpr uint8_t kOnNotifyList = 2;
constexpr uint8_t kOnDirtyList = 4;
constexpr uint8_t kOnStarvedList = 8;

struct Conn {
  int fd = -1;
  uint32_t generation = 0;
  ConnState state = ConnState::kFree;
  ReadSide reading = ReadSide::kOpen;
  WriteSide writing = WriteSide::kOpen;
  uint8_t ready = 0;                  // sticky readiness, kReadable | kWritable | ...: see poller.h
  uint8_t owes = 0;                   // kOwe...
  uint8_t lists = 0;                  // kOn...
  uint8_t closed_op = 0;              // abi::kOp..., valid in kClosed (and from the first error on)
  uint8_t read_bytes_log2 = 0;        // how large reads have been: chooses between packing and a fresh chunk
  bool announced : 1 = false;         // kClosed has been published
  bool hangup_told : 1 = false;       // kOweHangup has been raised once
  bool syn_waits : 1 = false;         // the kernel sends the SYN with our first bytes; until the handshake is over
  bool fills_chunk : 1 = false;       // its last reads filled a chunk, and there was nothing behind it
  int16_t closed_errno = 0;           // as closed_op
  uint32_t out_chunk_bytes = 0;       // those of out_bytes that lie in the pool's chunks
  uint32_t listener = kNoIndex;       // kNoIndex: dialed; in kFree: ConnTable's link to the next free one
  uint32_t low_water_bytes = 0;       // drain is owed when the queue falls to this
  uint32_t command_first = kNoIndex;  // this batch's write commands: ring slots, linked by Reactor::command_next_
  uint32_t command_last = kNoIndex;
  uint32_t out_first = kNoIndex;  // queued output: SegmentPool links
  uint32_t out_last = kNoIndex;
  uint64_t out_bytes = 0;
  double active_ms = 0;        // when a byte last moved
  double linger_until_ms = 0;  // valid in kClosing: when close() gives up
  CompactAddress peer;
};
// A server has one of these for each of its idle connections.
static_assert(sizeof(Conn) <= 96);

}  // namespace edgewire
