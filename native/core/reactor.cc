#include "core/reactor.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <limits>

#include "core/check.h"
#include "core/sys.h"

namespace edgewire {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A connection may cause this many records in one go: the phases that fill the ring leave that much room.
constexpr uint32_t kRecordsPerConn = 16;

// With this many events in one look at the poller the process is busy: by the time they are answered, more have come,
// and looking again costs less than a trip through libuv. With fewer it would mostly find nothing.
constexpr int kEventsWorthAnotherLook = 4;

// A deadline that has fired stays in its row as this until JavaScript sets another.
constexpr double kFired = -kInfinity;

double pending_ms(double deadline_ms) noexcept { return deadline_ms == kFired ? kInfinity : deadline_ms; }

}  // namespace

Reactor::Reactor(Host& host, uint64_t budget_bytes)
    : host_(host),
      pool_(host, budget_bytes),
      table_(host),
      queues_(pool_, host),
      wheel_(sys.monotonic_ns() / 1000000u) {}

Reactor::~Reactor() { close(); }

int Reactor::open(const SharedMemory& memory) noexcept {
  memory_ = memory;
  int32_t* control = memory.control;
  completions_ = RecordRing(memory.completions, abi::kCompletionCapacity, &control[abi::kControlCompletionHead],
                            &control[abi::kControlCompletionTail]);
  commands_ = RecordRing(memory.commands, abi::kCommandCapacity, &control[abi::kControlCommandHead],
                         &control[abi::kControlCommandTail]);
  command_next_.assign(abi::kCommandCapacity, kNoIndex);
  int error = poller_.open();
  if (error < 0) return error;
  open_ = true;
  reserve_fd_ = sys.open_null();
  update_clock();
  last_trim_ms_ = now_ms_;
  upkeep_phase();
  return 0;
}

void Reactor::close() noexcept {
  if (!open_) return;
  open_ = false;
  for (uint32_t index = 0; index < table_.rows(); index++) {
    Conn& conn = table_.at(index);
    if (conn.state == ConnState::kFree) continue;
    drop_commands(conn);
    queues_.drop_all(conn);
    if (conn.fd >= 0) sys.close(conn.fd);
    conn.fd = -1;
    table_.free(index);
  }
  for (uint32_t index = 0; index < listeners_.size(); index++) close_listener(index);
  queues_.release_cursor();
  release_phase();
  if (reserve_fd_ >= 0) sys.close(reserve_fd_);
  reserve_fd_ = -1;
  poller_.close();
}

// ---- the turn -----------------------------------------------------------------------------------------------------

void Reactor::turn(Look look) noexcept {
  if (in_turn_ || !open_) return;
  in_turn_ = true;
  bool worked = false;
  for (int round = 0; round < kRoundsPerTurn; round++) {
    update_clock();
    last_events_ = offered_events_;
    offered_events_ = 0;
    // Deadlines expire only after a look at the poller: what came in time must not lose to a late loop.
    bool polls = looks(look, round);
    if (polls) poll_phase();
    if (has_commands()) command_phase();
    accept_phase();
    read_phase();
    if (polls) expire_phase();
    publish_phase();
    worked = worked || !completions_.empty();
    dispatch_phase();
    if (!open_) break;
    command_phase();
    // Records that JavaScript has left behind (its environment is ending) still name chunks of this round.
    if (completions_.empty()) release_phase();
    if (!another_round()) break;
  }
  in_turn_ = false;
  if (!open_) return;
  if (worked) metric(abi::kMetricTurns)++;
  upkeep_phase();
}

void Reactor::flush() noexcept {
  if (!open_) return;
  if (in_turn_) {
    clock_is_fresh_ = false;
    metric(abi::kMetricMidTurnFlushes)++;
  } else {
    update_clock();
  }
  execute_commands();
  if (in_turn_) return;
  // Data that JavaScript has not taken yet still names chunks.
  if (completions_.empty()) release_phase();
  upkeep_phase();
}

bool Reactor::looks(Look look, int round) const noexcept {
  // This round begins with what the last look found, and whatever another look found would be served behind it.
  if (unserved_ > 0 && round % kRoundsPerLook != 0) return false;
  switch (look) {
    case Look::kAlways: return true;
    case Look::kLater: return round > 0;
    case Look::kOffered: return round > 0 || next_turn_ms() <= now_ms_;
    case Look::kNever: return false;
  }
  return false;
}

bool Reactor::another_round() const noexcept { return last_events_ >= kEventsWorthAnotherLook || wants_turn(); }

bool Reactor::wants_turn() const noexcept {
  if (!ready_.empty() || !notify_.empty() || listener_ready_) return true;
  if (!commands_.empty() || !completions_.empty()) return true;
  return !starved_.empty() && pool_.available_bytes() > 0;
}

double Reactor::next_turn_ms() const noexcept {
  uint64_t wheel_ms = wheel_.next_ms();
  double next = wheel_ms == TimerWheel::kNever ? kInfinity : static_cast<double>(wheel_ms);
  for (const Listener& listener : listeners_) {
    if (listener.state == ListenerState::kBackoff) next = std::min(next, listener.resume_ms);
  }
  if (pool_.mapped_bytes() > kSlabBytes) next = std::min(next, last_trim_ms_ + kTrimEveryMs);
  return next;
}

void Reactor::update_clock() noexcept {
  now_ms_ = monotonic_ms();
  clock_is_fresh_ = true;
  metric(abi::kMetricClockNowMs) = now_ms_;
  metric(abi::kMetricClockOffsetMs) = static_cast<double>(sys.epoch_ns()) / 1e6 - now_ms_;
}

// Handlers may have run for long since the round began: what they ask for counts from now. Once in a batch.
void Reactor::refresh_clock() noexcept {
  if (!clock_is_fresh_) now_ms_ = monotonic_ms();
  clock_is_fresh_ = true;
}

// ---- phases -------------------------------------------------------------------------------------------------------

void Reactor::poll_phase() noexcept { last_events_ += look(0); }

int Reactor::look(int limit_ms) noexcept {
  PollEvent events[Poller::kEventsPerWait];
  int count = poller_.wait(events, Poller::kEventsPerWait, limit_ms);
  metric(abi::kMetricPolls)++;
  // What wait() can fail with (EBADF, EFAULT, EINVAL) is a bug of ours, except that a fault-injecting test may invent
  // others: the events are not lost, they come with the next look.
  count = std::max(count, 0);
  take_events(events, count);
  unserved_ = ready_.size();
  return count;
}

int Reactor::wait(int limit_ms) noexcept {
  if (!open_) return 0;
  const int count = look(limit_ms);
  offered_events_ += count;
  return count;
}

void Reactor::offer(const PollEvent* events, int count) noexcept {
  if (!open_) return;
  offered_events_ += count;
  take_events(events, count);
}

void Reactor::take_events(const PollEvent* events, int count) noexcept {
  for (int i = 0; i < count; i++) {
    uint32_t index = static_cast<uint32_t>(events[i].token);
    if ((index & kListenerBit) != 0) {
      Listener* listener = (index & ~kListenerBit) < listeners_.size() ? &listeners_[index & ~kListenerBit] : nullptr;
      if (listener == nullptr || listener->generation != events[i].token >> 32) continue;
      listener->ready = true;
      listener_ready_ = true;
    } else if (table_.find_token(events[i].token) != nullptr) {
      mark_ready(index, events[i].ready);
    }
  }
}

void Reactor::accept_phase() noexcept {
  if (!listener_ready_) return;
  listener_ready_ = false;
  for (uint32_t index = 0; index < listeners_.size(); index++) {
    Listener& listener = listeners_[index];
    if (listener.ready && listener.state == ListenerState::kAccepting) accept_from(index);
  }
}

void Reactor::read_phase() noexcept {
  revive_starved();
  if (ready_.empty()) return;
  serving_.clear();
  serving_.swap(ready_);
  uint32_t round_bytes = 0;
  size_t served = 0;
  while (served < serving_.size() && round_bytes < kReadBytesPerRound && completions_.space() >= kRecordsPerConn) {
    uint32_t index = serving_[served++];
    table_.at(index).lists &= static_cast<uint8_t>(~kOnReadyList);
    serve_ready(index, &round_bytes);
  }
  // Those that the budget did not reach come first in the next round.
  unserved_ -= std::min(served, unserved_);
  ready_.insert(ready_.begin(), serving_.begin() + static_cast<ptrdiff_t>(served), serving_.end());
}

void Reactor::expire_phase() noexcept {
  for (Listener& listener : listeners_) {
    if (listener.state != ListenerState::kBackoff || now_ms_ < listener.resume_ms) continue;
    listener.state = ListenerState::kAccepting;
    listener.ready = true;
    listener_ready_ = true;
  }
  fired_.clear();
  wheel_.advance(static_cast<uint64_t>(now_ms_), fired_);
  for (uint32_t index : fired_) on_wheel(index);
}

void Reactor::publish_phase() noexcept {
  publish_accept_errors();
  size_t told = 0;
  while (told < notify_.size() && publish(notify_[told])) told++;
  notify_.erase(notify_.begin(), notify_.begin() + static_cast<ptrdiff_t>(told));
}

void Reactor::dispatch_phase() noexcept {
  if (completions_.empty()) return;
  metric(abi::kMetricDispatches)++;
  metric(abi::kMetricCompletions) += completions_.size();
  host_.dispatch();
  clock_is_fresh_ = false;
}

void Reactor::command_phase() noexcept { execute_commands(); }

void Reactor::release_phase() noexcept {
  // A chunk that somebody has leased meanwhile goes on taking small reads behind the leased bytes, so that many small
  // leases share a chunk.
  ChunkId kept = cursor_;
  if (kept != kNoChunk) pool_.retain(kept);
  for (ChunkId chunk : round_chunks_) pool_.release(chunk);
  round_chunks_.clear();
  bool leased = kept != kNoChunk && pool_.references(kept) > 1 && cursor_used_ < kChunkBytes;
  if (leased) {
    round_chunks_.push_back(kept);
  } else {
    if (kept != kNoChunk) pool_.release(kept);
    cursor_ = kNoChunk;
  }
  if (queues_.queued_bytes() == 0) queues_.release_cursor();
}

void Reactor::upkeep_phase() noexcept {
  if (now_ms_ - last_trim_ms_ >= kTrimEveryMs) {
    pool_.trim();
    last_trim_ms_ = now_ms_;
  }
  size_t capacity = ready_.capacity() + serving_.capacity() + starved_.capacity() + notify_.capacity() +
                    dirty_.capacity() + fired_.capacity() + round_chunks_.capacity() + table_.capacity() +
                    queues_.capacity() + pool_.mapped_bytes();
  if (capacity > capacity_) metric(abi::kMetricGrowths)++;
  capacity_ = capacity;
  metric(abi::kMetricSlabInUse) = static_cast<double>(pool_.in_use_bytes());
  metric(abi::kMetricSlabPeak) = static_cast<double>(pool_.in_use_peak_bytes());
  metric(abi::kMetricSlabMapped) = static_cast<double>(pool_.mapped_bytes());
  metric(abi::kMetricSlabBudget) = static_cast<double>(pool_.budget_bytes());
}

// ---- readiness ----------------------------------------------------------------------------------------------------

void Reactor::mark_ready(uint32_t index, uint8_t ready) noexcept {
  Conn& conn = table_.at(index);
  if (conn.state == ConnState::kClosed) return;
  conn.ready |= ready;
  int32_t* interest = table_.interest(index);
  bool useful = conn.state == ConnState::kDialing || conn.syn_waits || (conn.out_bytes > 0 && (ready & kWritable) != 0);
  if ((ready & kReadable) != 0) {
    interest[abi::kInterestFlags] |= abi::kFlagReadable;
    useful = useful || interest[abi::kInterestRead] != 0 || (ready & (kHangup | kBroken)) != 0 ||
             conn.state == ConnState::kClosing;
  }
  if (useful) enlist_ready(index);
}

void Reactor::revive_starved() noexcept {
  if (starved_.empty() || pool_.available_bytes() == 0) return;
  for (uint32_t index : starved_) {
    table_.at(index).lists &= static_cast<uint8_t>(~kOnStarvedList);
    enlist_ready(index);
  }
  starved_.clear();
}

// ---- completions --------------------------------------------------------------------------------------------------

// Tells JavaScript what connection `index` owes it. False when the ring is full: the rest follows in the next round.
bool Reactor::publish(uint32_t index) noexcept {
  struct Debt {
    uint8_t bit;
    int32_t head;
  };
  static constexpr Debt kInOrder[] = {
      {kOweEnd, abi::kCompletionEnd},
      {kOweHangup, abi::kCompletionHangup},
      {kOweDrain, abi::kCompletionDrain},
      {kOweFlushed, abi::kCompletionFlushed},
      {kOweReadTimeout, abi::kCompletionTimeout | abi::kDeadlineRead << 8},
      {kOweWriteTimeout, abi::kCompletionTimeout | abi::kDeadlineWrite << 8},
      {kOweIdleTimeout, abi::kCompletionTimeout | abi::kDeadlineIdle << 8},
  };
  Conn& conn = table_.at(index);
  if (completions_.space() < kRecordsPerConn) return false;
  conn.lists &= static_cast<uint8_t>(~kOnNotifyList);
  for (const Debt& debt : kInOrder) {
    if ((conn.owes & debt.bit) != 0) push(debt.head, index);
  }
  conn.owes = 0;
  if (conn.state == ConnState::kClosed && !conn.announced) {
    conn.announced = true;
    push(abi::kCompletionClosed | conn.closed_op << 8, index, conn.closed_errno);
  }
  return true;
}

void Reactor::publish_accept_errors() noexcept {
  for (uint32_t index = 0; index < listeners_.size(); index++) {
    Listener& listener = listeners_[index];
    if (listener.pending_errno == 0 || listener.state == ListenerState::kFree) continue;
    if (push(abi::kCompletionAcceptError, index, listener.pending_errno)) {
      listener.pending_errno = 0;
    } else {
      listener_ready_ = true;  // the ring is full: another round
    }
  }
}

// ---- deadlines ----------------------------------------------------------------------------------------------------

// Puts the connection's one wheel entry at the earliest of what it waits for.
void Reactor::arm(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  double* row = table_.row(index);
  double next;
  if (conn.state == ConnState::kClosing) {
    next = conn.linger_until_ms;
    if (conn.writing == WriteSide::kFinSent) next = std::min(next, now_ms_ + kPeerFinWaitMs);
  } else {
    next = std::min(pending_ms(row[abi::kRowReadDeadline]), pending_ms(row[abi::kRowWriteDeadline]));
    if (row[abi::kRowIdleMs] > 0) next = std::min(next, conn.active_ms + row[abi::kRowIdleMs]);
  }
  wheel_.reserve(table_.rows());
  // Written so that NaN, which only a bug in lib/ could leave here, counts as none.
  if (!(next < kInfinity)) {
    wheel_.disarm(index);
    row[abi::kRowArmedAt] = kInfinity;
    return;
  }
  // An entry may fire late by less than a tick, never early.
  double tick = std::ceil(std::max(next, 0.0));
  constexpr double kFarthest = 4e15;  // far below 2^53: exact as a double and as an integer
  wheel_.arm(index, static_cast<uint64_t>(std::min(tick, kFarthest)));
  row[abi::kRowArmedAt] = next;
}

// A closing connection's turn at the wheel: see close_command().
void Reactor::on_linger(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  // The FIN itself counts as a byte until it is acknowledged. A Unix socket puts its bytes into the peer's queue at once,
  // and counts them until they are read.
  bool all_sent =
      conn.writing == WriteSide::kFinSent && (conn.peer.family == AF_UNIX || sys.unsent_bytes(conn.fd) <= 1);
  if (all_sent) return finish(index, abi::kOpNone, 0);
  if (now_ms_ < conn.linger_until_ms) return arm(index);
  reset(index, abi::kOpClose, ETIMEDOUT);
}

void Reactor::on_wheel(uint32_t index) noexcept {
  Conn& conn = table_.at(index);
  double* row = table_.row(index);
  row[abi::kRowArmedAt] = kInfinity;
  if (conn.state == ConnState::kFree || conn.state == ConnState::kClosed) return;
  if (conn.state == ConnState::kClosing) {
    return on_linger(index);
  }
  if (pending_ms(row[abi::kRowReadDeadline]) <= now_ms_) {
    row[abi::kRowReadDeadline] = kFired;
    owe(index, kOweReadTimeout);
  }
  if (pending_ms(row[abi::kRowWriteDeadline]) <= now_ms_) {
    row[abi::kRowWriteDeadline] = kFired;
    owe(index, kOweWriteTimeout);
  }
  double idle_ms = row[abi::kRowIdleMs];
  if (idle_ms > 0 && conn.active_ms + idle_ms <= now_ms_) {
    row[abi::kRowIdleMs] = 0;
    owe(index, kOweIdleTimeout);
  }
  arm(index);
}

}  // namespace edgewire
