// How sockets come to the reactor: listening, accepting, dialing.
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>

#include "core/reactor.h"
#include "core/sys.h"

namespace edgewire {
namespace {

// One accept(2) leaves room for what its connection may add in the same round.
constexpr uint32_t kRecordsPerAccept = 4;

// A connection that died while it waited, or a network error that accept(2) passes on: the next one may be well. Any
// other error would come again at once.
bool belongs_to_one(int error) noexcept {
  switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case ETIMEDOUT: return true;
    default: return false;
  }
}

// 0 when the attempt is under way. What only makes it cheaper may fail: kernels before 4.11 and 4.2 have neither option.
int start_dial(int fd, const SocketAddress& address, const DialOptions& options, bool* syn_waits) noexcept {
  const bool tcp = address.family() != AF_UNIX;
  int on = 1;
  int error = 0;
  if (options.local != nullptr) {
    if (tcp && compact(*options.local).port == 0) sys.set_late_port(fd);
    error = sys.bind(fd, options.local->get(), options.local->length);
  }
  if (error == 0 && tcp && options.no_delay) error = sys.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (error < 0) return error;
  const bool fast_open = options.fast_open && tcp && sys.set_fast_open(fd) == 0;
  error = sys.connect(fd, address.get(), address.length);
  *syn_waits = error == 0 && fast_open;
  // EINTR: the attempt goes on in the background, as with EINPROGRESS; see connect(2).
  return error == -EINPROGRESS || error == -EINTR ? 0 : error;
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
  // In the middle of a dispatch a record may still name a listener that was closed in it: its index is not used again.
  uint32_t index = completions_.empty() ? 0 : static_cast<uint32_t>(listeners_.size());
  while (index < listeners_.size() && listeners_[index].state != ListenerState::kFree) index++;
  if (index == listeners_.size()) listeners_.emplace_back();
  Listener& listener = listeners_[index];
  int error = poller_.add(fd, uint64_t{listener.generation} << 32 | kListenerBit | index);
  if (error < 0) {
    if (address != nullptr) {
      discard_socket_file(*address);
      sys.close(fd);
    }
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

int Reactor::dial(const SocketAddress& address, const DialOptions& options) noexcept {
  int fd = sys.socket(address.family(), SOCK_STREAM);
  if (fd < 0) return fd;
  bool syn_waits = false;
  int error = start_dial(fd, address, options, &syn_waits);
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
  conn.syn_waits = syn_waits;
  conn.peer = compact(address);
  conn.low_water_bytes = options.low_water_bytes;
  conn.active_ms = now_ms_;
  return static_cast<int>(index);
}

void Reactor::finish_dial(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  int error = 0;
  int failed = sys.getsockopt_int(conn.fd, SOL_SOCKET, SO_ERROR, &error);
  if (failed < 0) error = -failed;
  if (error != 0) return finish(index, abi::kOpDial, error);
  // A spurious event before the handshake is over. One whose SYN waits for our bytes is writable before that.
  if (!conn.syn_waits && !handshake_over(conn)) {
    conn.ready = 0;
    return;
  }
  conn.state = ConnState::kOpen;
  conn.active_ms = now_ms_;
  metric(abi::kMetricDialed)++;
  // At once, not with what is owed: its data, which may be read in this very round, must come behind it.
  push(abi::kCompletionConnected, index);
  if (conn.out_bytes == 0) output_moved(index);
}

// Only a connected socket has a peer.
bool Reactor::handshake_over(const Conn& conn) noexcept {
  SocketAddress peer;
  peer.length = sizeof peer.storage;
  return sys.getpeername(conn.fd, peer.get(), &peer.length) != -ENOTCONN;
}

// Before the handshake that the first bytes begin is over, shutdown(2) takes the SYN back, and those bytes with it: the
// FIN waits for an event that tells of its end.
bool Reactor::fin_waits(uint32_t index) noexcept {
  const Conn& conn = table_.at(index);
  if (handshake_over(conn)) return false;
  if (table_.row(index)[abi::kRowSentBytes] == 0) {
    // Nobody has heard of us: there is no one to close it with.
    if (conn.state == ConnState::kClosing) return false;
    sys.send(conn.fd, "", 0);
  }
  return true;
}

void Reactor::fast_open_moved(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  if (!handshake_over(conn)) return;
  conn.syn_waits = false;
  if (conn.out_bytes == 0) output_moved(index);
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
  if (fd < 0 && belongs_to_one(-fd)) return true;
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
  if (reserve_fd_ < 0) reserve_fd_ = sys.open_null();
  listener.backoff_ms = std::clamp(listener.backoff_ms * 2, kAcceptBackoffMs, kAcceptBackoffMaxMs);
  listener.resume_ms = now_ms_ + listener.backoff_ms;
  listener.state = ListenerState::kBackoff;
  if (error == EMFILE || error == ENFILE) shed(listener);
}

// No descriptor is left: clients who wait would hang until one is. The reserve is just enough to take them one by one
// and turn them away, so that they learn of it and may try elsewhere.
void Reactor::shed(Listener& listener) noexcept {
  if (reserve_fd_ < 0) return;
  sys.close(reserve_fd_);
  for (int count = 0; count < kShedPerBackoff; count++) {
    SocketAddress peer;
    peer.length = sizeof peer.storage;
    int fd = sys.accept(listener.fd, peer.get(), &peer.length);
    if (fd < 0) break;
    sys.close(fd);
    metric(abi::kMetricShed)++;
  }
  // May fail when another thread was quicker; the next backoff does without, and tries to get it back.
  reserve_fd_ = sys.open_null();
}

}  // namespace edgewire
