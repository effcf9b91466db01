// The reactor's hands on sockets: opening, accepting, reading, sending, closing.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "core/check.h"
#include "core/reactor.h"
#include "core/sys.h"

namespace edgewire {
namespace {

// Below this much room a chunk is not worth another read into it.
constexpr uint32_t kReadRoomMinBytes = 4096;
// Offsets of lent bytes are multiples of this, so that a typed array of any kind can lie over them.
constexpr uint32_t kLentAlignment = 8;
// Input of a closing connection is read here and forgotten.
constexpr size_t kDiscardBytes = 16 * 1024;
// One accept(2) leaves room for what its connection may add in the same round.
constexpr uint32_t kRecordsPerAccept = 4;

bool is_limit(int error) noexcept {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

}  // namespace

// ---- listening and dialing ----------------------------------------------------------------------------------------

int Reactor::listen(const SocketAddress& address, const ListenOptions& options) noexcept {
  int fd = open_listener(address, options);
  if (fd < 0) return fd;
  SocketAddress bound = address;
  return adopt(fd, &bound, options);
}

int Reactor::listen_fd(int fd, const ListenOptions& options) noexcept {
  int error = adopt_listener(fd, options);
  return error < 0 ? error : adopt(fd, nullptr, options);
}

int Reactor::adopt(int fd, SocketAddress* address, const ListenOptions& options) noexcept {
  uint32_t index = 0;
  while (index < listeners_.size() && listeners_[index].state != ListenerState::kFree) index++;
  if (index == listeners_.size()) listeners_.emplace_back();
  Listener& listener = listeners_[index];
  int error = poller_.add(fd, uint64_t{listener.generation} << 32 | kListenerBit | index);
  if (error < 0) {
    if (address != nullptr) sys.close(fd);
    return error;
  }
  listener.fd = fd;
  listener.state = ListenerState::kAccepting;
  listener.low_water_bytes = options.low_water_bytes;
  listener.ready = false;
  listener.pending_errno = 0;
  listener.backoff_ms = 0;
  if (address != nullptr) remember_socket_file(listener, *address);
  return static_cast<int>(index);
}

void Reactor::close_listener(uint32_t index) noexcept {
  Listener& listener = listeners_[index];
  if (listener.state == ListenerState::kFree) return;
  // Another process may hold the same open socket (an inherited listener): the poller must forget ours by name.
  poller_.remove(listener.fd);
  remove_socket_file(listener);
  sys.close(listener.fd);
  listener.fd = -1;
  listener.state = ListenerState::kFree;
  listener.generation++;
}

int Reactor::dial(const SocketAddress& address, const SocketAddress* local, bool no_delay,
                  uint32_t low_water_bytes) noexcept {
  int fd = sys.socket(address.family(), SOCK_STREAM);
  if (fd < 0) return fd;
  int error = 0;
  int on = 1;
  if (local != nullptr) error = sys.bind(fd, local->get(), local->length);
  if (error == 0 && no_delay && address.family() != AF_UNIX) {
    error = sys.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (error == 0) error = sys.connect(fd, address.get(), address.length);
  // EINTR: the attempt goes on in the background, as with EINPROGRESS; see connect(2).
  if (error == -EINPROGRESS || error == -EINTR) error = 0;
  uint32_t index = error == 0 ? table_.allocate() : kNoIndex;
  if (error == 0 && index == kNoIndex) error = -ENOMEM;
  if (error == 0) error = poller_.add(fd, table_.token(index));
  if (error < 0) {
    if (index != kNoIndex) table_.free(index);
    sys.close(fd);
    return error;
  }
  Conn& conn = table_.at(index);
  conn.fd = fd;
  conn.state = ConnState::kDialing;
  conn.peer = compact(address);
  conn.low_water_bytes = low_water_bytes;
  conn.active_ms = now_ms_;
  return static_cast<int>(index);
}

void Reactor::finish_dial(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  int error = 0;
  int failed = sys.getsockopt_int(conn.fd, SOL_SOCKET, SO_ERROR, &error);
  if (failed < 0) error = -failed;
  if (error != 0) return finish(index, abi::kOpDial, error);
  // A spurious event before the handshake is over: only a connected socket has a peer.
  SocketAddress peer;
  peer.length = sizeof peer.storage;
  if (sys.getpeername(conn.fd, peer.get(), &peer.length) == -ENOTCONN) {
    conn.ready = 0;
    return;
  }
  conn.state = ConnState::kOpen;
  conn.active_ms = now_ms_;
  metric(abi::kMetricDialed)++;
  owe(index, kOweConnected);
}

// ---- accepting ----------------------------------------------------------------------------------------------------

void Reactor::accept_from(uint32_t listener_index) noexcept {
  Listener& listener = listeners_[listener_index];
  for (uint32_t count = 0; count < kAcceptsPerRound; count++) {
    if (completions_.space() < kRecordsPerAccept) break;
    if (!accept_one(listener, listener_index)) return;
  }
  listener_ready_ = true;
}

// False when there is nothing more to accept now.
bool Reactor::accept_one(Listener& listener, uint32_t listener_index) noexcept {
  SocketAddress peer;
  peer.length = sizeof peer.storage;
  int fd = sys.accept(listener.fd, peer.get(), &peer.length);
  if (fd == -EAGAIN) {
    listener.ready = false;
    return false;
  }
  // A connection that died while it waited, or an error that belongs to it: the next one may be well (accept(2)).
  if (fd < 0 && !is_limit(-fd) && fd != -EBADF && fd != -EINVAL && fd != -ENOTSOCK) return true;
  if (fd < 0) {
    accept_failed(listener, -fd);
    return false;
  }
  uint32_t index = table_.allocate();
  int error = index == kNoIndex ? -ENOMEM : poller_.add(fd, table_.token(index));
  if (error < 0) {
    if (index != kNoIndex) table_.free(index);
    sys.close(fd);
    accept_failed(listener, -error);
    return false;
  }
  Conn& conn = table_.at(index);
  conn.fd = fd;
  conn.state = ConnState::kOpen;
  conn.listener = listener_index;
  conn.low_water_bytes = listener.low_water_bytes;
  conn.peer = compact(peer);
  conn.active_ms = now_ms_;
  conn.ready = kWritable;  // a fresh socket's send buffer is empty
  listener.backoff_ms = 0;
  metric(abi::kMetricAccepted)++;
  push(abi::kCompletionAccepted, index, static_cast<int32_t>(listener_index));
  return true;
}

void Reactor::accept_failed(Listener& listener, int error) noexcept {
  metric(abi::kMetricAcceptErrors)++;
  listener.pending_errno = error;
  listener.backoff_ms = std::clamp(listener.backoff_ms * 2, kAcceptBackoffMs, kAcceptBackoffMaxMs);
  listener.resume_ms = now_ms_ + listener.backoff_ms;
  listener.state = ListenerState::kBackoff;
}

// ---- reading ------------------------------------------------------------------------------------------------------

void Reactor::serve_ready(uint32_t index, uint32_t* round_bytes) noexcept {
  Conn& conn = table_.at(index);
  if (conn.state == ConnState::kDialing && conn.ready != 0) finish_dial(index);
  bool alive = conn.state == ConnState::kOpen || conn.state == ConnState::kClosing;
  if (alive && conn.out_bytes > 0 && (conn.ready & kWritable) != 0) send_queue(index);
  if ((conn.ready & kReadable) == 0) return;
  if (conn.state == ConnState::kOpen) read_conn(index, round_bytes);
  if (conn.state == ConnState::kClosing) discard_input(index, round_bytes);
}

void Reactor::read_conn(uint32_t index, uint32_t* round_bytes) noexcept {
  Conn& conn = table_.at(index);
  uint32_t conn_bytes = 0;
  while (conn.reading == ReadSide::kOpen && (conn.ready & kReadable) != 0) {
    if (table_.interest(index)[abi::kInterestRead] == 0) return unread(index);
    if (conn_bytes >= kReadBytesPerConn || *round_bytes >= kReadBytesPerRound || completions_.space() < 2) {
      return enlist_ready(index);
    }
    uint32_t bytes = 0;
    ReadStep step = read_once(index, &bytes);
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
    sys.getsockopt_int(conn.fd, SOL_SOCKET, SO_ERROR, &error);
    if (error != 0) return finish(index, abi::kOpRead, error);
    conn.ready &= static_cast<uint8_t>(~kBroken);
  }
  if ((conn.ready & kHangup) != 0 && !conn.hangup_told) {
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

Reactor::ReadStep Reactor::read_once(uint32_t index, uint32_t* bytes) noexcept {
  Conn& conn = table_.at(index);
  int32_t& interest = table_.interest(index)[abi::kInterestRead];
  uint32_t wanted = interest < 0 ? kChunkBytes : static_cast<uint32_t>(interest);
  if (!choose_room(conn, wanted)) return ReadStep::kStarved;
  uint32_t room = std::min(kChunkBytes - cursor_used_, wanted);
  ssize_t got = sys.recv(conn.fd, pool_.data(cursor_) + cursor_used_, room);
  metric(abi::kMetricReads)++;
  if (got > 0) {
    *bytes = static_cast<uint32_t>(got);
    received(index, *bytes, room);
    if (interest > 0) interest = 0;
    // A short read emptied the socket, unless a FIN or an error stands behind it, for which no new edge will come.
    if (*bytes == room || (conn.ready & (kHangup | kBroken)) != 0) return ReadStep::kAgain;
    clear_readable(index);
    return ReadStep::kDone;
  }
  if (got == -EINTR) return ReadStep::kAgain;
  if (got == -EAGAIN && conn.writing != WriteSide::kBroken) {
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

// `bytes` have arrived at the cursor, in a room of `room`.
void Reactor::received(uint32_t index, uint32_t bytes, uint32_t room) noexcept {
  Conn& conn = table_.at(index);
  push(abi::kCompletionData, index, static_cast<int32_t>(cursor_ << kChunkBytesLog2 | cursor_used_),
       static_cast<int32_t>(bytes));
  cursor_used_ = std::min(kChunkBytes, (cursor_used_ + bytes + kLentAlignment - 1) & ~(kLentAlignment - 1));
  table_.row(index)[abi::kRowReceivedBytes] += bytes;
  metric(abi::kMetricBytesRead) += bytes;
  conn.active_ms = now_ms_;
  // How large the next read will be: at once up, slowly down.
  uint8_t log2 = static_cast<uint8_t>(std::bit_width(bytes - 1));
  if (bytes == room) log2++;
  if (log2 >= conn.read_bytes_log2) {
    conn.read_bytes_log2 = std::min<uint8_t>(log2, kChunkBytesLog2);
  } else {
    conn.read_bytes_log2--;
  }
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
    sent = count == 1 ? sys.send(conn.fd, pieces[0].iov_base, pieces[0].iov_len)
                      : sys.send_pieces(conn.fd, pieces, count);
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
  conn.closed_errno = error;
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
  conn.writing = WriteSide::kFinSent;
  // Both directions are over: closing the descriptor sends the FIN.
  if (conn.reading == ReadSide::kEnded) return finish(index, abi::kOpNone, 0);
  sys.shutdown_write(conn.fd);
  if (conn.state != ConnState::kClosing) return;
  conn.linger_until_ms = std::min(conn.linger_until_ms, now_ms_ + kPeerFinWaitMs);
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
    conn.closed_errno = error;
  }
  if (conn.closed_errno != 0) {
    CompactAddress unused;
    address(static_cast<int32_t>(index), abi::kAddressLocal, &unused, nullptr);
  }
  drop_commands(conn);
  queues_.drop_all(conn);
  // The socket's only descriptor: the poller forgets it by itself (poller.h), and the generation tells late events.
  sys.close(conn.fd);
  conn.fd = -1;
  wheel_.reserve(table_.rows());
  wheel_.disarm(index);
  table_.row(index)[abi::kRowArmedAt] = std::numeric_limits<double>::infinity();
  if (conn.state != ConnState::kDialing) metric(abi::kMetricClosed)++;
  conn.state = ConnState::kClosed;
  conn.ready = 0;
  owe(index, 0);
  conn.owes &= kOweConnected | kOweEnd;
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
