// The reactor's hands on open sockets: reading, sending, closing.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>

#include "core/check.h"
#include "core/reactor.h"
#include "core/sys.h"

namespace edgewire {
namespace {

// Below this much room a chunk is not worth another read into it.
constexpr uint32_t kReadRoomMinBytes = 4096;
// A read is told in so many records, and leaves room for one that ends it.
constexpr uint32_t kRecordsPerRead = 3;
// Offsets of lent bytes are multiples of this, so that a typed array of any kind can lie over them.
constexpr uint32_t kLentAlignment = 8;
// Input of a closing connection is read here and forgotten.
constexpr size_t kDiscardBytes = 16 * 1024;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A short read emptied the socket, and a new edge tells of more, with these exceptions: a FIN or an error stands behind
// the bytes; TCP stops at urgent data; a Unix socket stops behind bytes that came with descriptors.
bool short_read_is_no_end(const Conn& conn) noexcept {
  return (conn.ready & (kHangup | kBroken | kUrgent)) != 0 || conn.peer.family == AF_UNIX;
}

}  // namespace

// ---- reading ------------------------------------------------------------------------------------------------------

void Reactor::serve_ready(uint32_t index, uint32_t* round_bytes) noexcept {
  Conn& conn = table_.at(index);
  if (conn.state == ConnState::kDialing && conn.ready != 0) finish_dial(index);
  bool alive = conn.state == ConnState::kOpen || conn.state == ConnState::kClosing;
  if (conn.syn_waits && alive) [[unlikely]]
    fast_open_moved(index);
  if (alive && conn.out_bytes > 0 && (conn.ready & kWritable) != 0) send_queue(index);
  if ((conn.ready & kReadable) == 0) return;
  if (conn.state == ConnState::kOpen) read_conn(index, round_bytes);
  if (conn.state == ConnState::kClosing) discard_input(index, round_bytes);
}

void Reactor::read_conn(uint32_t index, uint32_t* round_bytes) noexcept {
  Conn& conn = table_.at(index);
  // After the peer's FIN there is nothing to read, but its RST is still to be noticed.
  if (conn.reading == ReadSide::kEnded) return unread(index);
  uint32_t conn_bytes = 0;
  while (conn.reading == ReadSide::kOpen && (conn.ready & kReadable) != 0) {
    if (table_.interest(index)[abi::kInterestRead] == 0) {
      // A reader of limited size may ask for more in this round's dispatch, before anybody calls the bytes unread.
      bool over = conn.writing == WriteSide::kBroken || (conn.ready & (kHangup | kBroken)) != 0;
      if (conn_bytes > 0 && over) return enlist_ready(index);
      return unread(index);
    }
    if (conn_bytes >= kReadBytesPerConn || *round_bytes >= kReadBytesPerRound ||
        completions_.space() < kRecordsPerRead) {
      return enlist_ready(index);
    }
    uint32_t bytes = 0;
    ReadStep step = read_once(index, &bytes);
    if (bytes == 0 && conn_bytes > 0) conn.fills_chunk = true;
    conn_bytes += bytes;
    *round_bytes += bytes;
    if (step == ReadStep::kStarved) {
      metric(abi::kMetricStarved)++;
      if ((conn.lists & kOnStarvedList) == 0) starved_.push_back(index);
      conn.lists |= kOnStarvedList;
    }
    if (step != ReadStep::kAgain) return;
  }
}

// Readiness of a connection that nobody reads: what must be noticed all the same.
void Reactor::unread(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  if (conn.writing == WriteSide::kBroken) return finish(index, conn.closed_op, conn.closed_errno);
  if ((conn.ready & kBroken) != 0) {
    int error = 0;
    int failed = sys.getsockopt_int(conn.fd, SOL_SOCKET, SO_ERROR, &error);
    if (failed < 0) error = -failed;
    if (error != 0) return finish(index, abi::kOpRead, error);
    conn.ready &= static_cast<uint8_t>(~kBroken);
  }
  if (conn.reading == ReadSide::kOpen && (conn.ready & kHangup) != 0 && !conn.hangup_told) {
    // With nothing before the FIN this is the end, though nobody has asked for it: a connection whose FIN has gone out
    // too is over. What lies behind urgent data is not counted.
    if ((conn.ready & kUrgent) == 0 && sys.unread_bytes(conn.fd) == 0) return input_ended(index);
    conn.hangup_told = true;
    owe(index, kOweHangup);
  }
}

void Reactor::clear_readable(uint32_t index) noexcept {
  table_.at(index).ready &= static_cast<uint8_t>(~kReadable);
  table_.interest(index)[abi::kInterestFlags] &= ~abi::kFlagReadable;
}

// Makes sure that the cursor has room for a read of at most `wanted` bytes. False at the pool's budget.
bool Reactor::choose_room(const Conn& conn, uint32_t wanted) noexcept {
  uint32_t expected = std::max(kReadRoomMinBytes, 2u << conn.read_bytes_log2);
  if (cursor_ != kNoChunk && kChunkBytes - cursor_used_ >= std::min({wanted, expected, kChunkBytes})) {
    return true;
  }
  ChunkId fresh = pool_.acquire();
  if (fresh == kNoChunk) return false;
  round_chunks_.push_back(fresh);
  cursor_ = fresh;
  cursor_used_ = 0;
  return true;
}

// Into `room` bytes at the cursor and, behind them, the chunk `spare` if there is one.
inline ssize_t Reactor::receive(int fd, uint32_t room, ChunkId spare) noexcept {
  uint8_t* into = pool_.data(cursor_) + cursor_used_;
  if (spare == kNoChunk) [[likely]]
    return sys.recv(fd, into, room);
  const iovec pieces[] = {{.iov_base = into, .iov_len = room}, {.iov_base = pool_.data(spare), .iov_len = kChunkBytes}};
  return sys.recv_pieces(fd, pieces, 2);
}

// `bytes` have arrived, in `room` at the cursor first; those that did not fit are at the start of `spare`, which becomes
// the cursor then, and is given back otherwise.
inline void Reactor::received(uint32_t index, uint32_t bytes, uint32_t room, ChunkId spare) noexcept {
  table_.row(index)[abi::kRowReceivedBytes] += bytes;
  metric(abi::kMetricBytesRead) += bytes;
  table_.at(index).active_ms = now_ms_;
  if (spare != kNoChunk) [[unlikely]] {
    if (bytes <= room) {
      pool_.release(spare);
    } else {
      lend(index, room);
      round_chunks_.push_back(spare);
      cursor_ = spare;
      cursor_used_ = 0;
      bytes -= room;
    }
  }
  lend(index, bytes);
}

// JavaScript gets the `bytes` at the cursor.
inline void Reactor::lend(uint32_t index, uint32_t bytes) noexcept {
  push(abi::kCompletionData, index, static_cast<int32_t>(cursor_ << kChunkBytesLog2 | cursor_used_),
       static_cast<int32_t>(bytes));
  cursor_used_ = std::min(kChunkBytes, (cursor_used_ + bytes + kLentAlignment - 1) & ~(kLentAlignment - 1));
}

// How large the next read will be: at once up, slowly down.
inline void Reactor::expect(Conn& conn, uint32_t bytes, bool full) noexcept {
  uint8_t log2 = static_cast<uint8_t>(std::bit_width(bytes - 1));
  if (full) log2++;
  if (log2 >= conn.read_bytes_log2) {
    conn.read_bytes_log2 = std::min<uint8_t>(log2, kChunkBytesLog2);
  } else {
    conn.read_bytes_log2--;
  }
}

Reactor::ReadStep Reactor::read_once(uint32_t index, uint32_t* bytes) noexcept {
  Conn& conn = table_.at(index);
  int32_t& interest = table_.interest(index)[abi::kInterestRead];
  uint32_t wanted = interest < 0 ? kChunkBytes : static_cast<uint32_t>(interest);
  if (!choose_room(conn, wanted)) return ReadStep::kStarved;
  uint32_t room = std::min(kChunkBytes - cursor_used_, wanted);
  // A read that fills its room says nothing of what is left. Where what comes just fills a chunk, a second one behind it
  // makes the read a short one, which spares the next, that would only find the socket empty.
  bool may_fill = interest < 0 && conn.fills_chunk && conn.read_bytes_log2 == kChunkBytesLog2;
  ChunkId spare = may_fill ? pool_.acquire() : kNoChunk;
  ssize_t got = receive(conn.fd, room, spare);
  metric(abi::kMetricReads)++;
  if (got > 0) {
    *bytes = static_cast<uint32_t>(got);
    bool full = *bytes == room + (spare == kNoChunk ? 0 : kChunkBytes);
    received(index, *bytes, room, spare);
    expect(conn, *bytes, full);
    // Of a stream that goes on and on, large reads keep the socket locked for long, and what arrives meanwhile is left
    // for this thread to take in.
    if (*bytes > room) conn.fills_chunk = false;
    if (interest > 0) interest = 0;
    if (full || short_read_is_no_end(conn)) return ReadStep::kAgain;
    clear_readable(index);
    return ReadStep::kDone;
  }
  if (spare != kNoChunk) pool_.release(spare);
  if (got == -EINTR) return ReadStep::kAgain;
  if (got == -EAGAIN && conn.writing != WriteSide::kBroken) {
    conn.ready &= static_cast<uint8_t>(~(kUrgent | kBroken));
    clear_readable(index);
    return ReadStep::kDone;
  }
  if (got == 0 && conn.writing != WriteSide::kBroken) {
    input_ended(index);
    return ReadStep::kDone;
  }
  // After a refused write the first error is the one to tell; finish() keeps it.
  finish(index, abi::kOpRead, got < 0 ? static_cast<int>(-got) : 0);
  return ReadStep::kClosed;
}

void Reactor::input_ended(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  conn.reading = ReadSide::kEnded;
  clear_readable(index);
  owe(index, kOweEnd);
  if (conn.writing == WriteSide::kFinSent) finish(index, abi::kOpNone, 0);
}

// Reads what a closing connection still receives, so that closing it does not answer with RST; see kPeerFinWaitMs.
void Reactor::discard_input(uint32_t index, uint32_t* round_bytes) noexcept {
  Conn& conn = table_.at(index);
  uint8_t scratch[kDiscardBytes];
  while (conn.reading == ReadSide::kOpen) {
    if (*round_bytes >= kReadBytesPerRound) return enlist_ready(index);
    ssize_t got = sys.recv(conn.fd, scratch, sizeof scratch);
    metric(abi::kMetricReads)++;
    if (got == -EINTR) continue;
    if (got == -EAGAIN) return clear_readable(index);
    if (got > 0) {
      *round_bytes += static_cast<uint32_t>(got);
      continue;
    }
    conn.reading = ReadSide::kEnded;
    clear_readable(index);
    // With everything sent, an end of any kind is the end that close() was waiting for.
    if (conn.writing == WriteSide::kFinSent) return finish(index, abi::kOpNone, 0);
    if (got < 0) return finish(index, abi::kOpWrite, static_cast<int>(-got));
  }
}

// ---- sending ------------------------------------------------------------------------------------------------------

ssize_t Reactor::send_some(uint32_t index, const iovec* pieces, int count) noexcept {
  Conn& conn = table_.at(index);
  ssize_t sent;
  do {
    metric(abi::kMetricFlushes)++;
    sent =
        count == 1 ? sys.send(conn.fd, pieces[0].iov_base, pieces[0].iov_len) : sys.send_pieces(conn.fd, pieces, count);
  } while (sent == -EINTR);
  if (sent > 0) {
    table_.row(index)[abi::kRowSentBytes] += static_cast<double>(sent);
    metric(abi::kMetricBytesWritten) += static_cast<double>(sent);
    conn.active_ms = now_ms_;
  } else if (sent == -EAGAIN) {
    conn.ready &= static_cast<uint8_t>(~kWritable);
  }
  return sent;
}

void Reactor::send_queue(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  size_t total = 0;
  while (conn.out_bytes > 0 && (conn.ready & kWritable) != 0) {
    if (total >= kSendBytesPerConn) {
      enlist_ready(index);
      break;
    }
    iovec pieces[kPiecesPerSend];
    bool lost = false;
    int count = queues_.gather(conn, pieces, kPiecesPerSend, kSendBytesPerConn - total, &lost);
    if (lost) return reset(index, abi::kOpWrite, EFAULT);
    size_t asked = 0;
    for (int i = 0; i < count; i++) asked += pieces[i].iov_len;
    ssize_t sent = send_some(index, pieces, count);
    if (sent == -EAGAIN) break;
    if (sent < 0) return write_failed(index, static_cast<int>(-sent));
    queues_.consume(conn, static_cast<size_t>(sent));
    total += static_cast<size_t>(sent);
    // A short write filled the socket's buffer: the next edge comes when it has room (epoll(7)).
    if (static_cast<size_t>(sent) < asked) conn.ready &= static_cast<uint8_t>(~kWritable);
  }
  output_moved(index);
}

// The queue may have become shorter: who waits for that?
void Reactor::output_moved(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  int32_t& flags = table_.interest(index)[abi::kInterestFlags];
  if ((flags & abi::kFlagWantDrain) != 0 && conn.out_bytes <= conn.low_water_bytes) {
    flags &= ~abi::kFlagWantDrain;
    owe(index, kOweDrain);
  }
  if (conn.out_bytes > 0) return;
  if ((flags & abi::kFlagWantFlushed) != 0) {
    flags &= ~abi::kFlagWantFlushed;
    owe(index, kOweFlushed);
  }
  if (conn.writing == WriteSide::kFinQueued) send_fin(index);
}

void Reactor::write_failed(uint32_t index, int error) noexcept {
  Conn& conn = table_.at(index);
  conn.closed_op = abi::kOpWrite;
  conn.closed_errno = static_cast<int16_t>(error);
  conn.writing = WriteSide::kBroken;
  queues_.drop_all(conn);
  drop_commands(conn);
  bool somebody_reads = table_.interest(index)[abi::kInterestRead] != 0;
  if (conn.state != ConnState::kOpen || conn.reading != ReadSide::kOpen || !somebody_reads) {
    return finish(index, abi::kOpWrite, error);
  }
  // What the peer sent before it went away is still delivered.
  mark_ready(index, kReadable | kHangup);
}

void Reactor::send_fin(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  if (conn.syn_waits && fin_waits(index)) return;
  conn.writing = WriteSide::kFinSent;
  // Both directions are over: closing the descriptor sends the FIN.
  if (conn.reading == ReadSide::kEnded) return finish(index, abi::kOpNone, 0);
  sys.shutdown_write(conn.fd);
  if (conn.state != ConnState::kClosing) return;
  arm(index);
  if ((conn.ready & kReadable) != 0) enlist_ready(index);
}

// ---- the end ------------------------------------------------------------------------------------------------------

//   finish() now:            descriptor closed, queue dropped, state kClosed, on the notify list
//   next publish_phase:      JavaScript is told, once
//   kCommandAcknowledge:     the index is free
void Reactor::finish(uint32_t index, int32_t op, int error) noexcept {
  Conn& conn = table_.at(index);
  if (conn.state == ConnState::kClosed || conn.state == ConnState::kFree) return;
  if (conn.closed_errno == 0) {
    conn.closed_op = static_cast<uint8_t>(op);
    conn.closed_errno = static_cast<int16_t>(error);
  }
  CompactAddress local;
  if (conn.closed_errno != 0 && address(static_cast<int32_t>(index), abi::kAddressLocal, &local, nullptr)) {
    local_of_failed_[index] = local;
  }
  drop_commands(conn);
  queues_.drop_all(conn);
  // The socket's only descriptor: the poller forgets it by itself (poller.h), and the generation tells late events.
  sys.close(conn.fd);
  conn.fd = -1;
  double& armed_at = table_.row(index)[abi::kRowArmedAt];
  if (armed_at < kInfinity) wheel_.disarm(index);
  armed_at = kInfinity;
  if (conn.state != ConnState::kDialing) metric(abi::kMetricClosed)++;
  conn.state = ConnState::kClosed;
  conn.ready = 0;
  owe(index, 0);
  conn.owes &= kOweEnd;
}

// As finish(), with RST instead of FIN.
void Reactor::reset(uint32_t index, int32_t op, int error) noexcept {
  Conn& conn = table_.at(index);
  if (conn.fd >= 0) {
    linger hard{};
    hard.l_onoff = 1;
    sys.setsockopt(conn.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  }
  finish(index, op, error);
}

}  // namespace edgewire
