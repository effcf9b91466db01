// What JavaScript asks of the reactor: the commands in the ring, and the calls for which it waits.
//
// Commands are carried out in two passes. The first sorts them: writes are linked per connection, in order, everything
// else takes effect at once or marks its connection. The second sends, one system call per connection: however often a
// handler wrote, and however the writes of different connections lie between one another.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>

#include "core/check.h"
#include "core/reactor.h"
#include "core/sys.h"

namespace edgewire {

void Reactor::execute_commands() noexcept {
  if (executing_) return;
  executing_ = true;
  uint32_t count = std::min(commands_.size(), commands_.capacity());
  uint32_t head = static_cast<uint32_t>(memory_.control[abi::kControlCommandHead]);
  for (uint32_t i = 0; i < count; i++) execute((head + i) & (commands_.capacity() - 1), commands_.peek(i));
  for (uint32_t index : dirty_) flush_conn(index);
  dirty_.clear();
  commands_.drop(count);
  memory_.control[abi::kControlArenaUsed] = 0;
  metric(abi::kMetricCommands) += count;
  executing_ = false;
}

void Reactor::execute(uint32_t slot, const Record& record) noexcept {
  Conn* conn = table_.find(record.subject);
  uint32_t index = static_cast<uint32_t>(record.subject);
  bool open = conn != nullptr && conn->state != ConnState::kClosed;
  switch (record.type()) {
    case abi::kCommandWriteArena:
    case abi::kCommandWriteSlab:
    case abi::kCommandWritePinned: return link_write(slot, record);
    case abi::kCommandCloseWrite:
      if (open) close_write_command(index);
      return;
    case abi::kCommandClose:
      if (open) close_command(index, record.a);
      return;
    case abi::kCommandAbort:
      if (open) reset(index, abi::kOpAbort, 0);
      return;
    case abi::kCommandRead:
      if (open && (conn->ready & kReadable) != 0) enlist_ready(index);
      return;
    case abi::kCommandRetain:
      if (pool_.in_use(index)) pool_.retain(index);
      return;
    case abi::kCommandRelease:
      // Let go at the end of the round: a write of the same bytes may stand in this batch.
      if (pool_.in_use(index)) round_chunks_.push_back(index);
      return;
    case abi::kCommandArm:
      if (!open || conn->state == ConnState::kClosing) return;
      // A new idle timeout counts from now.
      if (record.a == 0) return arm(index);
      refresh_clock();
      conn->active_ms = now_ms_;
      return arm(index);
    case abi::kCommandAcknowledge:
      if (conn != nullptr && conn->announced) acknowledge(index);
      return;
    case abi::kCommandListenerClose:
    case abi::kCommandListenerAccept: return listener_command(record);
    default: EDGEWIRE_DCHECK(false);
  }
}

void Reactor::acknowledge(uint32_t index) noexcept {
  if (table_.at(index).closed_errno != 0) local_of_failed_.erase(index);
  table_.free(index);
}

void Reactor::listener_command(const Record& record) noexcept {
  uint32_t index = static_cast<uint32_t>(record.subject);
  if (index >= listeners_.size() || listeners_[index].state == ListenerState::kFree) return;
  Listener& listener = listeners_[index];
  if (record.type() == abi::kCommandListenerClose) return close_listener(index);
  if (record.a == 0) {
    listener.state = ListenerState::kPaused;
  } else if (listener.state == ListenerState::kPaused) {
    listener.state = ListenerState::kAccepting;
    listener.ready = true;
    listener_ready_ = true;
  }
}

// ---- writing ------------------------------------------------------------------------------------------------------

bool Reactor::valid_write(const Record& record) const noexcept {
  if (record.b <= 0) return false;
  uint32_t bytes = static_cast<uint32_t>(record.b);
  uint32_t place = static_cast<uint32_t>(record.a);
  switch (record.type()) {
    case abi::kCommandWriteArena: return place <= abi::kArenaBytes && bytes <= abi::kArenaBytes - place;
    case abi::kCommandWriteSlab:
      return pool_.in_use(place >> kChunkBytesLog2) && bytes <= kChunkBytes - (place & (kChunkBytes - 1));
    default: return true;
  }
}

void Reactor::link_write(uint32_t slot, const Record& record) noexcept {
  Conn* conn = table_.find(record.subject);
  bool writable = conn != nullptr && conn->state != ConnState::kClosed && conn->writing != WriteSide::kBroken;
  if (!writable || !valid_write(record)) {
    if (record.type() == abi::kCommandWritePinned) host_.unpin(static_cast<uint32_t>(record.a));
    return;
  }
  command_next_[slot] = kNoIndex;
  if (conn->command_last == kNoIndex) {
    conn->command_first = slot;
  } else {
    command_next_[conn->command_last] = slot;
  }
  conn->command_last = slot;
  mark_dirty(static_cast<uint32_t>(record.subject));
}

void Reactor::flush_conn(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  conn.lists &= static_cast<uint8_t>(~kOnDirtyList);
  if (conn.state == ConnState::kClosed || conn.state == ConnState::kFree) return;
  if (conn.command_first != kNoIndex) send_commands(index);
  bool alive = conn.state == ConnState::kOpen || conn.state == ConnState::kClosing;
  if (alive && conn.writing != WriteSide::kBroken) output_moved(index);
}

// Sends what this batch wrote to one connection; what the kernel does not take joins the queue.
void Reactor::send_commands(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  if (conn.out_bytes > 0 || conn.state == ConnState::kDialing || (conn.ready & kWritable) == 0) {
    queue_commands(index, 0);
    bool alive = conn.state == ConnState::kOpen || conn.state == ConnState::kClosing;
    if (alive && (conn.ready & kWritable) != 0) send_queue(index);
    return;
  }
  while (conn.command_first != kNoIndex) {
    iovec pieces[kPiecesPerSend];
    size_t bytes = 0;
    int count = gather_commands(conn, pieces, &bytes);
    if (count == 0) return reset(index, abi::kOpWrite, EFAULT);
    ssize_t sent = send_some(index, pieces, count);
    if (sent < 0 && sent != -EAGAIN) return write_failed(index, static_cast<int>(-sent));
    if (sent < 0 || static_cast<size_t>(sent) < bytes) {
      conn.ready &= static_cast<uint8_t>(~kWritable);
      return queue_commands(index, sent < 0 ? 0 : static_cast<size_t>(sent));
    }
    take_sent(conn, count);
  }
}

const uint8_t* Reactor::command_bytes(const Record& record) noexcept {
  uint32_t place = static_cast<uint32_t>(record.a);
  switch (record.type()) {
    case abi::kCommandWriteArena: return memory_.arena + place;
    case abi::kCommandWriteSlab: return pool_.data(place >> kChunkBytesLog2) + (place & (kChunkBytes - 1));
    default: {
      size_t bytes = 0;
      const uint8_t* data = host_.pinned(place, &bytes);
      return data != nullptr && bytes >= static_cast<uint32_t>(record.b) ? data : nullptr;
    }
  }
}

// Describes the oldest writes of this batch. 0 when the first one's memory is gone.
int Reactor::gather_commands(Conn& conn, iovec* pieces, size_t* bytes) noexcept {
  int count = 0;
  for (uint32_t slot = conn.command_first; slot != kNoIndex && count < kPiecesPerSend; slot = command_next_[slot]) {
    const Record& record = memory_.commands[slot];
    const uint8_t* data = command_bytes(record);
    if (data == nullptr) break;
    pieces[count].iov_base = const_cast<uint8_t*>(data);
    pieces[count].iov_len = static_cast<size_t>(record.b);
    *bytes += static_cast<size_t>(record.b);
    count++;
  }
  return count;
}

// The first `count` writes of the batch are with the kernel.
void Reactor::take_sent(Conn& conn, int count) noexcept {
  for (int i = 0; i < count; i++) {
    const Record& record = memory_.commands[conn.command_first];
    if (record.type() == abi::kCommandWritePinned) host_.unpin(static_cast<uint32_t>(record.a));
    conn.command_first = command_next_[conn.command_first];
  }
  if (conn.command_first == kNoIndex) conn.command_last = kNoIndex;
}

// Queues this batch's writes but for the first `skip` bytes, which are with the kernel.
void Reactor::queue_commands(uint32_t index, size_t skip) noexcept {
  Conn& conn = table_.at(index);
  while (conn.command_first != kNoIndex) {
    const Record& record = memory_.commands[conn.command_first];
    size_t bytes = static_cast<size_t>(record.b);
    if (skip >= bytes) {
      skip -= bytes;
      take_sent(conn, 1);
      continue;
    }
    int error = queue_record(index, record, static_cast<uint32_t>(skip));
    if (error == ENOBUFS) metric(abi::kMetricEvictions)++;
    if (error != 0) return reset(index, abi::kOpWrite, error);
    skip = 0;
    conn.command_first = command_next_[conn.command_first];
  }
  conn.command_last = kNoIndex;
}

// Queues one write from byte `from` on: 0, ENOBUFS when the pool has no room for it, EFAULT when its memory is gone.
int Reactor::queue_record(uint32_t index, const Record& record, uint32_t from) noexcept {
  Conn& conn = table_.at(index);
  uint32_t place = static_cast<uint32_t>(record.a);
  uint32_t left = static_cast<uint32_t>(record.b) - from;
  if (record.type() == abi::kCommandWritePinned && record.detail() == abi::kPinBriefly) {
    const uint8_t* data = command_bytes(record);
    if (data == nullptr) return EFAULT;
    if (!queue_copy(index, data + from, left)) return ENOBUFS;
    host_.unpin(place);
    return 0;
  }
  if (record.type() == abi::kCommandWritePinned) {
    queues_.append_pinned(conn, place, from, left);
    return 0;
  }
  if (record.type() == abi::kCommandWriteArena) {
    return queue_copy(index, memory_.arena + place + from, left) ? 0 : ENOBUFS;
  }
  ChunkId chunk = place >> kChunkBytesLog2;
  uint32_t offset = (place & (kChunkBytes - 1)) + from;
  if (left < kSpanQueuedMinBytes) return queue_copy(index, pool_.data(chunk) + offset, left) ? 0 : ENOBUFS;
  if (!claim_output_room(index)) return ENOBUFS;
  queues_.append_span(conn, chunk, offset, left);
  return 0;
}

bool Reactor::queue_copy(uint32_t index, const uint8_t* data, uint32_t bytes) noexcept {
  Conn& conn = table_.at(index);
  while (true) {
    uint64_t before = conn.out_bytes;
    if (queues_.append_copy(conn, data, bytes, read_reserve_bytes())) return true;
    uint32_t copied = static_cast<uint32_t>(conn.out_bytes - before);
    data += copied;
    bytes -= copied;
    // With room in the pool it is the host that has no memory, and would be asked for ever.
    if (pool_.available_bytes() >= read_reserve_bytes() + kChunkBytes) return false;
    if (!claim_output_room(index)) return false;
  }
}

// Output may fill the pool up to the reserve for reading. At it, whoever holds the most is given up, not whoever
// happens to write next: a slow reader loses its connection, the others go on. False when that is `index` itself.
bool Reactor::claim_output_room(uint32_t index) noexcept {
  for (int evicted = 0; pool_.available_bytes() < read_reserve_bytes() + kChunkBytes; evicted++) {
    uint32_t victim = largest_holder();
    if (victim == kNoIndex || victim == index || evicted == kEvictionsPerWrite) return false;
    metric(abi::kMetricEvictions)++;
    reset(victim, abi::kOpWrite, ENOBUFS);
  }
  return true;
}

// Walks the whole table: only when the pool is full, and each walk frees what the largest had.
uint32_t Reactor::largest_holder() noexcept {
  uint32_t largest = kNoIndex;
  uint32_t most_bytes = 0;
  for (uint32_t index = 0; index < table_.rows(); index++) {
    const Conn& conn = table_.at(index);
    if (conn.out_chunk_bytes <= most_bytes) continue;
    most_bytes = conn.out_chunk_bytes;
    largest = index;
  }
  return largest;
}

uint64_t Reactor::read_reserve_bytes() const noexcept {
  return std::max(kReadReserveBytesMin, pool_.budget_bytes() / 8);
}

void Reactor::drop_commands(Conn& conn) noexcept {
  while (conn.command_first != kNoIndex) take_sent(conn, 1);
}

// ---- closing ------------------------------------------------------------------------------------------------------

void Reactor::close_write_command(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  if (conn.writing != WriteSide::kOpen) return;
  conn.writing = WriteSide::kFinQueued;
  mark_dirty(index);
}

//   close()   queue drains ---> FIN ---> peer's kernel has everything ---> peer's FIN ---> finish()
//              |                                    |                        |
//              | linger_ms in all ------------------+                        | kPeerFinWaitMs
//              v                                                             v
//             RST, ETIMEDOUT                                                finish()
void Reactor::close_command(uint32_t index, int32_t linger_ms) noexcept {
  Conn& conn = table_.at(index);
  if (conn.state == ConnState::kClosing) return;
  if (conn.state == ConnState::kDialing) return finish(index, abi::kOpAbort, 0);
  if (conn.writing == WriteSide::kBroken) return finish(index, conn.closed_op, conn.closed_errno);
  conn.state = ConnState::kClosing;
  conn.owes &= kOweEnd | kOweDrain | kOweFlushed;
  table_.interest(index)[abi::kInterestRead] = 0;
  refresh_clock();
  conn.linger_until_ms = now_ms_ + linger_ms;
  if (conn.writing == WriteSide::kOpen) conn.writing = WriteSide::kFinQueued;
  arm(index);
  if ((conn.ready & kReadable) != 0) enlist_ready(index);
  mark_dirty(index);
}

// ---- calls --------------------------------------------------------------------------------------------------------

bool Reactor::address(int32_t index, int32_t which, CompactAddress* out, SocketAddress* full) noexcept {
  bool of_listener = which == abi::kAddressListener;
  Conn* conn = of_listener ? nullptr : table_.find(index);
  int fd = conn != nullptr ? conn->fd : -1;
  if (of_listener && index >= 0 && static_cast<uint32_t>(index) < listeners_.size()) {
    fd = listeners_[static_cast<uint32_t>(index)].fd;
  }
  if (conn != nullptr && which == abi::kAddressRemote &&
      (conn->peer.family == AF_INET || conn->peer.family == AF_INET6)) {
    *out = conn->peer;
    return true;
  }
  if (conn != nullptr && fd < 0 && which == abi::kAddressLocal) {
    auto kept = local_of_failed_.find(static_cast<uint32_t>(index));
    if (kept != local_of_failed_.end()) *out = kept->second;
    return kept != local_of_failed_.end();
  }
  if (fd < 0) return false;
  SocketAddress asked;
  asked.length = sizeof asked.storage;
  int error = which == abi::kAddressRemote ? sys.getpeername(fd, asked.get(), &asked.length)
                                           : sys.getsockname(fd, asked.get(), &asked.length);
  if (error < 0) return false;
  *out = compact(asked);
  if (full != nullptr) *full = asked;
  return true;
}

int Reactor::set_option(int32_t index, int32_t option, int32_t value) noexcept {
  Conn* conn = table_.find(index);
  if (conn == nullptr || conn->fd < 0) return -EBADF;
  bool tcp = conn->peer.family == AF_INET || conn->peer.family == AF_INET6;
  int on = value != 0 ? 1 : 0;
  switch (option) {
    case abi::kOptionNoDelay: return tcp ? sys.setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) : 0;
    case abi::kOptionKeepAlive: {
      if (!tcp) return 0;
      int error = sys.setsockopt(conn->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
      if (error < 0 || value <= 0) return error;
      return sys.set_keepalive_delay(conn->fd, value);
    }
    case abi::kOptionReceiveBuffer: return sys.setsockopt(conn->fd, SOL_SOCKET, SO_RCVBUF, &value, sizeof value);
    case abi::kOptionSendBuffer: return sys.setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUF, &value, sizeof value);
    default: return -EINVAL;
  }
}

}  // namespace edgewire
