// The reactor: one per thread. A turn polls, reads, tells JavaScript once, and sends what JavaScript left to send.
//
// turn() in reactor.cc is the list of phases; reactor_connect.cc has listening, accepting and dialing, reactor_io.cc
// reading, sending and closing, reactor_commands.cc what JavaScript asks for. Everything runs on the thread of its environment.
//
// Budgets. Every loop is bounded, and what is left over stays on the ready list for the next round or turn:
//   a round  kReadBytesPerRound read over all connections, kReadBytesPerConn of one, kAcceptsPerRound of a listener,
//            kSendBytesPerConn of one connection's queue, Poller::kEventsPerWait events, the room in the ring
//   a turn   kRoundsPerTurn rounds; then libuv serves the process's other handles before the next turn
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "abi.h"
#include "core/conn.h"
#include "core/conn_table.h"
#include "core/listener.h"
#include "core/out_queue.h"
#include "core/poller.h"
#include "core/ring.h"
#include "core/slab.h"
#include "core/timer_wheel.h"

namespace edgewire {

// What the reactor needs from whoever embeds it: memory that JavaScript can see, and a way to call it.
class Host : public SlabSource, public RowSource, public PinSource {
 public:
  // JavaScript takes every completion in the ring and leaves commands. May call Reactor::flush(), nothing else.
  virtual void dispatch() noexcept = 0;
};

// The shared memory that the host has made; see abi.h.
struct SharedMemory {
  int32_t* control;
  double* metrics;
  Record* completions;
  Record* commands;
  uint8_t* arena;
};

// Where the rounds of a turn get their events from.
enum class Look : uint8_t {
  kAlways,   // every round looks at the poller
  kLater,    // the first does not: commands were left outside a turn
  kOffered,  // the first has what offer() or wait() brought, and looks as well only if a deadline is due
  kNever,    // another thread waits on the poller: not now
};

struct DialOptions {
  const SocketAddress* local = nullptr;  // nullptr: the kernel chooses address and port
  bool no_delay = true;
  // The first bytes go with the SYN where the kernel has a cookie for that address: the connection stands at once, and
  // nothing is sent before output is there. Where it cannot be had, an ordinary dial.
  bool fast_open = false;
  uint32_t low_water_bytes = 0;
};

class Reactor {
 public:
  // A message that fills a chunk needs one recv; four of them are read, told and answered while they are still in the
  // second-level cache.
  static constexpr uint32_t kReadBytesPerRound = 256 * 1024;
  static constexpr uint32_t kReadBytesPerConn = 128 * 1024;
  static constexpr uint32_t kAcceptsPerRound = 128;
  static constexpr uint32_t kSendBytesPerConn = 1024 * 1024;
  static constexpr int kRoundsPerTurn = 16;
  // While a round's budget leaves connections over, only every so many rounds look at the poller.
  static constexpr int kRoundsPerLook = 4;
  // iovecs of one send: more is no faster, and they live on the stack.
  static constexpr int kPiecesPerSend = 64;
  // When the peer's kernel has the last byte, close() waits this long for the peer's FIN, discarding what it still
  // sends; closing at once would answer it with RST, which can destroy the last bytes on their way to it.
  static constexpr double kPeerFinWaitMs = 1000;
  // What is left of a lent chunk that the kernel did not take: from here on the chunk itself waits, below it a copy.
  static constexpr uint32_t kSpanQueuedMinBytes = 32 * 1024;
  // Connections given up at once to make room for one write's rest; when that is not enough, the writer is.
  static constexpr int kEvictionsPerWrite = 4;
  // An accept that met EMFILE and the like is tried again after this, doubling up to the second.
  static constexpr double kAcceptBackoffMs = 20;
  static constexpr double kAcceptBackoffMaxMs = 1000;
  // Connections accepted and closed at once, by means of the reserve descriptor, each time that descriptors run out.
  static constexpr int kShedPerBackoff = 64;
  static constexpr double kTrimEveryMs = 5000;
  // A peer that does not read fills the pool only up to this distance from its budget: what is left is for reading, so
  // that stalled connections never stop the others. 1/8 of the budget, at least this much.
  static constexpr uint64_t kReadReserveBytesMin = 4 * kChunkBytes;
  // Tokens of listeners carry this bit in the index half.
  static constexpr uint32_t kListenerBit = 0x80000000u;

  Reactor(Host& host, uint64_t budget_bytes);
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  int open(const SharedMemory& memory) noexcept;  // 0 or -errno
  // Closes every descriptor. Nothing is told to JavaScript any more.
  void close() noexcept;

  void turn(Look look) noexcept;
  // Events that another thread has waited for; the next turn serves them.
  void offer(const PollEvent* events, int count) noexcept;
  // Waits for events, at most so long (-1: no limit), and keeps them for the next turn. Their number. Not within a turn.
  int wait(int limit_ms) noexcept;
  // Executes the commands now, in the middle of a dispatch: the arena or the ring is full. Callable at any time.
  void flush() noexcept;

  // The driver's thread has woken the loop.
  void note_wake() noexcept { metric(abi::kMetricWakes)++; }

  // How often JavaScript has been called.
  double dispatches() const noexcept { return memory_.metrics[abi::kMetricDispatches]; }
  bool has_commands() const noexcept { return !commands_.empty(); }
  // Work is left that no event will announce: the driver gives another turn soon.
  bool wants_turn() const noexcept;
  // When the driver must give a turn at the latest, native clock milliseconds; Infinity: no need.
  double next_turn_ms() const noexcept;
  int poll_fd() const noexcept { return poller_.fd(); }
  Poller& poller() noexcept { return poller_; }
  void update_clock() noexcept;

  // Index or -errno.
  int listen(const SocketAddress& address, const ListenOptions& options) noexcept;
  int listen_fd(int fd, const ListenOptions& options) noexcept;
  int dial(const SocketAddress& address, const DialOptions& options) noexcept;
  // False when there is no such thing (closed, never bound). `which`: abi::kAddress...
  bool address(int32_t index, int32_t which, CompactAddress* compact, SocketAddress* full) noexcept;
  int set_option(int32_t index, int32_t option, int32_t value) noexcept;

  SlabPool& pool() noexcept { return pool_; }
  ConnTable& connections() noexcept { return table_; }

 private:
  // -- phases, in the order of a turn (reactor.cc)
  void poll_phase() noexcept;
  int look(int limit_ms) noexcept;
  bool looks(Look look, int round) const noexcept;
  void accept_phase() noexcept;
  void read_phase() noexcept;
  void expire_phase() noexcept;
  void publish_phase() noexcept;
  void dispatch_phase() noexcept;
  void command_phase() noexcept;
  void release_phase() noexcept;
  void upkeep_phase() noexcept;
  bool another_round() const noexcept;

  // -- reactor.cc
  void take_events(const PollEvent* events, int count) noexcept;
  void refresh_clock() noexcept;
  void mark_ready(uint32_t index, uint8_t ready) noexcept;
  void enlist_ready(uint32_t index) noexcept { enlist(index, kOnReadyList, ready_); }
  void owe(uint32_t index, uint8_t what) noexcept {
    table_.at(index).owes |= what;
    enlist(index, kOnNotifyList, notify_);
  }
  void mark_dirty(uint32_t index) noexcept { enlist(index, kOnDirtyList, dirty_); }
  // Once, however often it is called: `bit` in the connection's `lists` says that it is there.
  void enlist(uint32_t index, uint8_t bit, std::vector<uint32_t>& list) noexcept {
    Conn& conn = table_.at(index);
    if ((conn.lists & bit) != 0) return;
    conn.lists |= bit;
    list.push_back(index);
  }
  bool publish(uint32_t index) noexcept;
  void publish_accept_errors() noexcept;
  void on_wheel(uint32_t index) noexcept;
  void on_linger(uint32_t index) noexcept;
  void arm(uint32_t index) noexcept;
  void revive_starved() noexcept;
  bool push(int32_t head, uint32_t subject, int32_t a = 0, int32_t b = 0) noexcept {
    return completions_.push(Record{head, static_cast<int32_t>(subject), a, b});
  }
  double& metric(int32_t word) noexcept { return memory_.metrics[word]; }

  // -- reactor_connect.cc
  int adopt(int fd, SocketAddress* address, const ListenOptions& options) noexcept;
  void accept_from(uint32_t listener_index) noexcept;
  bool accept_one(Listener& listener, uint32_t listener_index) noexcept;
  void accept_failed(Listener& listener, int error) noexcept;
  void shed(Listener& listener) noexcept;
  void finish_dial(uint32_t index) noexcept;
  static bool handshake_over(const Conn& conn) noexcept;
  bool fin_waits(uint32_t index) noexcept;
  void fast_open_moved(uint32_t index) noexcept;
  void close_listener(uint32_t index) noexcept;

  // -- reactor_io.cc
  void serve_ready(uint32_t index, uint32_t* round_bytes) noexcept;
  void read_conn(uint32_t index, uint32_t* round_bytes) noexcept;
  enum class ReadStep { kAgain, kDone, kStarved, kClosed };
  ReadStep read_once(uint32_t index, uint32_t* bytes) noexcept;
  void discard_input(uint32_t index, uint32_t* round_bytes) noexcept;
  bool choose_room(const Conn& conn, uint32_t wanted) noexcept;
  ssize_t receive(int fd, uint32_t room, ChunkId spare) noexcept;
  void received(uint32_t index, uint32_t bytes, uint32_t room, ChunkId spare) noexcept;
  void lend(uint32_t index, uint32_t bytes) noexcept;
  static void expect(Conn& conn, uint32_t bytes, bool full) noexcept;
  void unread(uint32_t index) noexcept;
  void clear_readable(uint32_t index) noexcept;
  void input_ended(uint32_t index) noexcept;
  void send_queue(uint32_t index) noexcept;
  ssize_t send_some(uint32_t index, const iovec* pieces, int count) noexcept;
  void output_moved(uint32_t index) noexcept;
  void write_failed(uint32_t index, int error) noexcept;
  void send_fin(uint32_t index) noexcept;
  void finish(uint32_t index, int32_t op, int error) noexcept;
  void reset(uint32_t index, int32_t op, int error) noexcept;

  // -- reactor_commands.cc
  void execute_commands() noexcept;
  void execute(uint32_t slot, const Record& record) noexcept;
  void link_write(uint32_t slot, const Record& record) noexcept;
  bool valid_write(const Record& record) const noexcept;
  void flush_conn(uint32_t index) noexcept;
  void send_commands(uint32_t index) noexcept;
  int gather_commands(Conn& conn, iovec* pieces, size_t* bytes) noexcept;
  void take_sent(Conn& conn, int count) noexcept;
  void queue_commands(uint32_t index, size_t skip) noexcept;
  void drop_commands(Conn& conn) noexcept;
  const uint8_t* command_bytes(const Record& record) noexcept;
  uint64_t read_reserve_bytes() const noexcept;
  int queue_record(uint32_t index, const Record& record, uint32_t from) noexcept;
  bool queue_copy(uint32_t index, const uint8_t* data, uint32_t bytes) noexcept;
  bool claim_output_room(uint32_t index) noexcept;
  uint32_t largest_holder() noexcept;
  void close_command(uint32_t index, int32_t linger_ms) noexcept;
  void close_write_command(uint32_t index) noexcept;
  void listener_command(const Record& record) noexcept;
  void acknowledge(uint32_t index) noexcept;

  Host& host_;
  SlabPool pool_;
  ConnTable table_;
  OutQueues queues_;
  TimerWheel wheel_;
  Poller poller_;
  SharedMemory memory_{};
  RecordRing completions_;
  RecordRing commands_;
  std::deque<Listener> listeners_;
  // Our own address of connections that ended with an error, for its message; until the acknowledgement.
  std::unordered_map<uint32_t, CompactAddress> local_of_failed_;

  std::vector<uint32_t> ready_;    // connections with readiness to serve, oldest first
  size_t unserved_ = 0;            // so many of them were there at the last look at the poller
  std::vector<uint32_t> serving_;  // the same while the read phase walks it
  std::vector<uint32_t> starved_;  // would read, but the pool stands at its budget
  std::vector<uint32_t> notify_;   // owe JavaScript something
  std::vector<uint32_t> dirty_;    // have commands to carry out
  std::vector<uint32_t> fired_;
  std::vector<ChunkId> round_chunks_;  // chunks lent to JavaScript for this round, one reference each
  std::vector<uint32_t> command_next_;
  ChunkId cursor_ = kNoChunk;  // small reads are packed behind one another into this chunk
  uint32_t cursor_used_ = 0;

  size_t capacity_ = 0;  // of everything that grows, in elements: a turn that raises it has allocated
  double now_ms_ = 0;
  double last_trim_ms_ = 0;
  int last_events_ = 0;
  int offered_events_ = 0;
  int reserve_fd_ = -1;  // given up for a moment when accept(2) finds no descriptor left
  bool listener_ready_ = false;
  bool clock_is_fresh_ = false;  // now_ms_ was taken after JavaScript ran last
  bool in_turn_ = false;
  bool executing_ = false;
  bool open_ = false;
};

}  // namespace edgewire
