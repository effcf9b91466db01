// JavaScript as the reactor sees it: shared memory, and a dispatch() that takes completions and leaves commands. It
// holds the reactor to what abi.h promises: what is told, how often, in which order, and with which bytes.
#pragma once

#include <sanitizer/asan_interface.h>

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <vector>

#include "core/reactor.h"
#include "kernel.h"

namespace edgewire::fuzz {

constexpr double kNoDeadline = std::numeric_limits<double>::infinity();

// A connection from its first completion (or dial) to kCompletionClosed.
struct Life {
  uint32_t index = kNoIndex;
  Socket* socket = nullptr;
  bool dialed = false;
  bool connected = false;
  bool ended = false;
  bool hung_up = false;
  bool closing = false;           // close or abort was commanded
  bool finished_writing = false;  // the same, or closeWrite
  int closed = 0;
  uint64_t received = 0;
  uint8_t style = 0;
  uint32_t quiet_from = 0;  // with `closing`: no record from this ring position on may carry data
  uint32_t asked_at = 0;    // ring position at which the interest was set
  int32_t asked = 0;        // that interest; 0 also when one read has been had
  double due_ms[3] = {kNoDeadline, kNoDeadline, kNoDeadline};  // by kDeadline... - 1: not told before
  uint32_t due_set_at[3] = {};  // ring positions; an older record is of an older deadline
  int timeouts[3] = {};
  std::vector<uint64_t> wants[2];  // drain, flushed: for each request not answered yet, what was written before it
};

// Received bytes that the host holds on to, and which they are.
struct Lease {
  uint32_t address;
  uint32_t bytes;
  uint32_t stream;
  uint64_t position;

  ChunkId chunk() const { return address >> kChunkBytesLog2; }
};

struct Event {
  int32_t type;
  Life& life;
  Lease data{};  // lent until the handler returns
};

struct Pin {
  const uint8_t* data = nullptr;
  size_t bytes = 0;
  bool briefly = false;
  std::unique_ptr<uint8_t[]> own;  // of a small one, for AddressSanitizer to watch
};

class JsHost final : public Host {
 public:
  static constexpr uint32_t kLowWaterBytes = 4096;
  static constexpr size_t kWrittenBytesMax = 4 * 1024 * 1024;  // of one run

  JsHost(Kernel& kernel, uint64_t budget_bytes) : kernel_(kernel), reactor(*this, budget_bytes) {
    memory_.control.fill(0);
    memory_.metrics.fill(0);
    // The positions meet the border of the 32-bit space.
    for (const int32_t word : {abi::kControlCompletionHead, abi::kControlCompletionTail, abi::kControlCommandHead,
                               abi::kControlCommandTail}) {
      control(word) = -7;
    }
    EXPECT(reactor.open({memory_.control.data(), memory_.metrics.data(), memory_.completions.data(),
                         memory_.commands.data(), memory_.arena.data()}) == 0,
           "open");
    reactor.pool().set_poison(true);
  }

  // ---- Host -----------------------------------------------------------------------------------------------------------

  uint8_t* acquire_slab(uint32_t index) noexcept override {
    if (kernel_.mood(Call::kMemory) % 4 == 1) return nullptr;
    static std::vector<std::unique_ptr<uint8_t[]>> kept;
    if (index >= kept.size()) kept.resize(index + 1);
    if (kept[index] == nullptr) kept[index].reset(new uint8_t[kSlabBytes]);
    if (index >= slabs_.size()) slabs_.resize(index + 1);
    EXPECT(slabs_[index] == nullptr, "a slab twice");
    slabs_[index] = kept[index].get();
    ASAN_UNPOISON_MEMORY_REGION(slabs_[index], kSlabBytes);
    return slabs_[index];
  }
  void release_slab(uint32_t index) noexcept override {
    EXPECT(index < slabs_.size() && slabs_[index] != nullptr, "a slab that was not acquired");
    ASAN_POISON_MEMORY_REGION(slabs_[index], kSlabBytes);
    slabs_[index] = nullptr;
  }
  bool grow_rows(uint32_t rows, double** doubles, int32_t** words) noexcept override {
    if (kernel_.mood(Call::kMemory) % 4 == 1) return false;
    std::vector<double> more_doubles(size_t{rows} * abi::kRowWords);
    std::vector<int32_t> more_words(size_t{rows} * abi::kInterestWords);
    std::copy(doubles_.begin(), doubles_.end(), more_doubles.begin());
    std::copy(words_.begin(), words_.end(), more_words.begin());
    doubles_.swap(more_doubles);
    words_.swap(more_words);
    *doubles = doubles_.data();
    *words = words_.data();
    return true;
  }
  const uint8_t* pinned(uint32_t id, size_t* bytes) noexcept override {
    const auto found = pins.find(id);
    if (found == pins.end()) EXPECT(id >= kNoSuchPin, "a pin was asked for after unpin()");
    *bytes = found == pins.end() ? 0 : found->second.bytes;
    return *bytes == 0 ? nullptr : found->second.data;
  }
  void unpin(uint32_t id) noexcept override {
    EXPECT(pins.erase(id) == 1 || id >= kNoSuchPin, "a pin was let go twice");
  }
  void dispatch() noexcept override {
    in_dispatch_ = true;
    take_records();
    in_dispatch_ = false;
  }

  // ---- what JavaScript does -------------------------------------------------------------------------------------------

  void push(int32_t head, uint32_t subject, int32_t a = 0, int32_t b = 0) {
    if (has_full_commands()) flush();
    const uint32_t tail = static_cast<uint32_t>(control(abi::kControlCommandTail));
    memory_.commands[tail & (abi::kCommandCapacity - 1)] = Record{head, static_cast<int32_t>(subject), a, b};
    control(abi::kControlCommandTail) = static_cast<int32_t>(tail + 1);
  }
  void flush() {
    // Records that were left behind keep their bytes until the next dispatch, but not over a flush between turns.
    const bool left = control(abi::kControlCompletionHead) != control(abi::kControlCompletionTail);
    left && !in_dispatch_ ? reactor.turn(Look::kLater) : reactor.flush();
    after_commands();
  }
  void turn(bool poll) {
    reactor.turn(poll ? Look::kAlways : Look::kLater);
    after_commands();
  }

  void write_arena(Life& life, uint32_t bytes, uint64_t from) {
    bytes = note_write(life, bytes);
    if (bytes == 0) return;
    if (abi::kArenaBytes - control(abi::kControlArenaUsed) < static_cast<int32_t>(bytes) || has_full_commands())
      flush();
    const int32_t at = control(abi::kControlArenaUsed);
    std::memcpy(memory_.arena.data() + at, Pattern::at(kWritten, from), bytes);
    life.socket->output.append(kWritten, from, bytes);
    control(abi::kControlArenaUsed) = at + static_cast<int32_t>(bytes);
    push(abi::kCommandWriteArena, life.index, at, static_cast<int32_t>(bytes));
  }
  void write_slab(Life& life, Lease from) {
    from.bytes = note_write(life, from.bytes);
    if (from.bytes == 0) return;
    life.socket->output.append(from.stream, from.position, from.bytes);
    push(abi::kCommandWriteSlab, life.index, static_cast<int32_t>(from.address), static_cast<int32_t>(from.bytes));
  }
  void write_pinned(Life& life, uint32_t bytes, uint64_t from, bool briefly) {
    bytes = note_write(life, bytes);
    if (bytes == 0) return;
    const uint32_t id = next_pin_++;
    Pin& pin = pins[id];
    pin = {.data = Pattern::at(kWritten, from), .bytes = bytes, .briefly = briefly, .own = {}};
    if (bytes <= kOwnBytesMax) {
      pin.own.reset(new uint8_t[bytes]);
      std::memcpy(pin.own.get(), pin.data, bytes);
      pin.data = pin.own.get();
    }
    life.socket->output.append(kWritten, from, bytes);
    push(abi::kCommandWritePinned | (briefly ? abi::kPinBriefly << 8 : 0), life.index, static_cast<int32_t>(id),
         static_cast<int32_t>(bytes));
  }
  void close_write(Life& life) {
    life.finished_writing = true;
    push(abi::kCommandCloseWrite, life.index);
  }
  void close(Life& life, int32_t linger_ms) {
    end(life);
    push(abi::kCommandClose, life.index, linger_ms);
  }
  void abort(Life& life) {
    end(life);
    push(abi::kCommandAbort, life.index);
  }
  // 0: pause, negative: all that comes, n > 0: one read of at most n bytes.
  void set_interest(Life& life, int32_t bytes) {
    int32_t* const words = reactor.connections().interest(life.index);
    if (life.closing && bytes != 0) return;
    words[abi::kInterestRead] = life.asked = bytes;
    life.asked_at = completion_tail();
    if (bytes != 0 && (words[abi::kInterestFlags] & abi::kFlagReadable) != 0) push(abi::kCommandRead, life.index);
  }
  // As lib/conn_output.ts, only while something is queued: otherwise nothing would move any more.
  void want(Life& life, int32_t flag) {
    if (life.socket->output.written() <= life.socket->sent + (flag == abi::kFlagWantDrain ? kLowWaterBytes : 0)) return;
    int32_t& flags = reactor.connections().interest(life.index)[abi::kInterestFlags];
    auto& wants = life.wants[flag == abi::kFlagWantDrain ? 0 : 1];
    if ((flags & flag) == 0 || wants.empty()) wants.push_back(0);
    wants.back() = life.socket->output.written();
    flags |= flag;
  }
  void set_deadline(Life& life, int32_t row_word, double at_ms) {
    double* const row = reactor.connections().row(life.index);
    row[row_word] = at_ms;
    note_due(life, row_word == abi::kRowReadDeadline ? abi::kDeadlineRead : abi::kDeadlineWrite, at_ms);
    if (at_ms >= row[abi::kRowArmedAt]) return;
    row[abi::kRowArmedAt] = at_ms;
    push(abi::kCommandArm, life.index);
  }
  void set_idle_timeout(Life& life, double ms) {
    reactor.connections().row(life.index)[abi::kRowIdleMs] = ms;
    note_due(life, abi::kDeadlineIdle, ms > 0 ? now_ms() + ms : kNoDeadline);
    push(abi::kCommandArm, life.index, 1);
  }
  void retain(const Lease& lease) {
    if (leases.size() >= kLeasesMax) return;
    leases.push_back(lease);
    push(abi::kCommandRetain, lease.chunk());
  }
  void release(size_t which) {
    push(abi::kCommandRelease, leases[which].chunk());
    leases.erase(leases.begin() + static_cast<ptrdiff_t>(which));
  }
  Life* dial(const SocketAddress& to, const SocketAddress* local) {
    if (has_commands()) flush();  // garbage() may lie there for an index that is free, and would be this one's
    const int index = reactor.dial(to, {.local = local, .fast_open = true, .low_water_bytes = kLowWaterBytes});
    if (index < 0) return nullptr;
    Life& life = begin(static_cast<uint32_t>(index));
    life.dialed = true;
    return &life;
  }

  // ---- what may be looked at ------------------------------------------------------------------------------------------

  Life* living(uint32_t index) { return index < living_.size() ? living_[index] : nullptr; }
  size_t living_count() const { return living_count_; }
  double now_ms() const { return static_cast<double>(kernel_.now_ns) / 1e6; }
  bool has_commands() const {
    return memory_.control[abi::kControlCommandTail] != memory_.control[abi::kControlCommandHead];
  }
  size_t slabs_held() const {
    return static_cast<size_t>(std::count_if(slabs_.begin(), slabs_.end(), [](auto* slab) { return slab != nullptr; }));
  }

  static constexpr uint32_t kNoSuchPin = 0x10000000;  // ids from here on were never given out
  static constexpr uint32_t kEverything = UINT32_MAX;

  std::function<void(Event&)> handle;
  uint32_t records_per_dispatch = kEverything;
  bool abandoned = false;  // the reactor was closed in the middle of a dispatch
  size_t written_bytes = 0;
  std::map<uint32_t, Pin> pins;
  std::vector<Lease> leases;
  std::vector<std::unique_ptr<Life>> lives;  // all there ever were, oldest first

 private:
  static constexpr uint64_t kWritten = 4711;  // the pattern that writes are cut from
  static constexpr size_t kLeasesMax = 64;
  static constexpr size_t kOwnBytesMax = 1024;

  struct Memory {
    std::array<int32_t, abi::kControlWords> control;
    std::array<double, abi::kMetricWords> metrics;
    std::array<Record, abi::kCompletionCapacity> completions;
    std::array<Record, abi::kCommandCapacity> commands;
    std::array<uint8_t, abi::kArenaBytes> arena;
  };
  static inline Memory memory_;  // the same for every run: making it anew would take longer than the run

  int32_t& control(int32_t word) { return memory_.control[static_cast<size_t>(word)]; }
  uint32_t completion_tail() { return static_cast<uint32_t>(control(abi::kControlCompletionTail)); }
  bool has_full_commands() {
    return static_cast<uint32_t>(control(abi::kControlCommandTail)) -
               static_cast<uint32_t>(control(abi::kControlCommandHead)) >=
           uint32_t{abi::kCommandCapacity};
  }

  Life& begin(uint32_t index) {
    EXPECT(living(index) == nullptr, "an index in use was given out");
    lives.push_back(std::make_unique<Life>());
    Life& life = *lives.back();
    life.index = index;
    life.socket = kernel_.socket_of(index);
    EXPECT(life.socket != nullptr, "a connection without a socket");
    if (index >= living_.size()) living_.resize(index + 1);
    living_[index] = &life;
    living_count_++;
    return life;
  }
  void end(Life& life) {
    if (!life.closing) life.quiet_from = completion_tail();
    life.closing = life.finished_writing = true;
  }
  // How much of a write fits into the run; what is written behind the end is the reactor's to drop, somewhere.
  uint32_t note_write(Life& life, uint32_t bytes) {
    bytes = static_cast<uint32_t>(std::min<size_t>({bytes, kWrittenBytesMax - written_bytes, Pattern::kStretch}));
    written_bytes += bytes;
    if (life.finished_writing) life.socket->unpredictable = true;
    return bytes;
  }
  // Memory that JavaScript may use again: the arena, and pins of kPinBriefly.
  void after_commands() {
    if (has_commands()) return;
    std::memset(memory_.arena.data(), 0xEE, 64);
    for (const auto& [id, pin] : pins) EXPECT(!pin.briefly, "held a pin that was lent briefly");
  }

  void take_records() {
    int32_t& head = control(abi::kControlCompletionHead);
    for (uint32_t taken = 0; head != control(abi::kControlCompletionTail) && taken < records_per_dispatch; taken++) {
      const uint32_t position = static_cast<uint32_t>(head);
      const Record record = memory_.completions[position & (abi::kCompletionCapacity - 1)];
      head = static_cast<int32_t>(position + 1);
      serve(record, position);
      if (abandoned) return;
    }
  }

  void serve(const Record& record, uint32_t position) {
    const auto index = static_cast<uint32_t>(record.subject);
    if (record.type() == abi::kCompletionAcceptError) {
      EXPECT(record.a > 0, "an accept error without an errno");
      return;
    }
    if (record.type() == abi::kCompletionAccepted) begin(index).connected = true;
    Life* const life = living(index);
    EXPECT(life != nullptr, "a completion for nobody");
    Event event{record.type(), *life};
    note(record, *life, event, position);
    if (record.type() == abi::kCompletionClosed) {
      living_[index] = nullptr;
      living_count_--;
      push(abi::kCommandAcknowledge, index);
    }
    if (handle) handle(event);
  }

  void note(const Record& record, Life& life, Event& event, uint32_t position) {
    const bool early = !life.connected && record.type() != abi::kCompletionTimeout &&
                       record.type() != abi::kCompletionClosed && record.type() != abi::kCompletionConnected;
    EXPECT(!early, "told before it was connected");
    EXPECT(life.closed == 0, "told after kCompletionClosed");
    switch (record.type()) {
      case abi::kCompletionAccepted: break;
      case abi::kCompletionConnected:
        EXPECT(life.dialed && !life.connected, "connected twice");
        life.connected = true;
        break;
      case abi::kCompletionData: note_data(record, life, event, position); break;
      case abi::kCompletionEnd:
        EXPECT(!life.ended, "the end twice");
        EXPECT(life.received == life.socket->peer_sent || life.closing, "the end before all bytes");
        life.ended = true;
        break;
      case abi::kCompletionHangup:
        EXPECT(!life.hung_up, "hung up twice");
        EXPECT(life.socket->peer_fin || life.socket->reset, "a hangup that was not");
        life.hung_up = true;
        break;
      case abi::kCompletionDrain: note_wanted(life, life.wants[0], kLowWaterBytes); break;
      case abi::kCompletionFlushed: note_wanted(life, life.wants[1], 0); break;
      case abi::kCompletionTimeout: note_timeout(life, record.detail(), position); break;
      case abi::kCompletionClosed: note_closed(life, record.detail(), record.a); break;
      default: EXPECT(false, "an unknown completion");
    }
  }

  // One answer may stand for several requests, but comes for the oldest at the latest when its bytes have gone.
  void note_wanted(Life& life, std::vector<uint64_t>& wants, uint64_t level_bytes) {
    EXPECT(!wants.empty(), "told what nobody asked for");
    EXPECT(life.socket->unpredictable || wants.front() <= life.socket->sent + level_bytes,
           "told before the bytes had gone");
    wants.erase(wants.begin());
  }

  void note_data(const Record& record, Life& life, Event& event, uint32_t position) {
    EXPECT(!life.ended, "data after the end");
    EXPECT(record.b > 0, "data without bytes");
    const auto later = [position](uint32_t mark) { return static_cast<int32_t>(position - mark) >= 0; };
    EXPECT(!life.closing || !later(life.quiet_from), "data after close()");
    if (later(life.asked_at)) {
      EXPECT(life.asked != 0, "data while nobody reads");
      EXPECT(life.asked < 0 || record.b <= life.asked, "more data than asked for");
      if (life.asked > 0) life.asked = 0;
    }
    const Socket& socket = *life.socket;
    event.data = {static_cast<uint32_t>(record.a), static_cast<uint32_t>(record.b), socket.id, life.received};
    const uint32_t offset = event.data.address & (kChunkBytes - 1);
    EXPECT(reactor.pool().in_use(event.data.chunk()), "data in a chunk that is free");
    EXPECT(offset + event.data.bytes <= kChunkBytes && offset % 8 == 0, "data across a chunk's border");
    const uint8_t* const bytes = reactor.pool().data(event.data.chunk()) + offset;
    EXPECT(std::memcmp(bytes, Pattern::at(socket.id, life.received), event.data.bytes) == 0,
           "other bytes than the peer's");
    life.received += event.data.bytes;
  }

  void note_due(Life& life, int32_t which, double at_ms) {
    life.due_ms[which - 1] = at_ms == -kNoDeadline || std::isnan(at_ms) ? kNoDeadline : at_ms;
    life.due_set_at[which - 1] = completion_tail();
  }
  void note_timeout(Life& life, int32_t which, uint32_t position) {
    EXPECT(which >= abi::kDeadlineRead && which <= abi::kDeadlineIdle, "an unknown deadline");
    life.timeouts[which - 1]++;
    if (static_cast<int32_t>(position - life.due_set_at[which - 1]) < 0) return;
    EXPECT(now_ms() >= life.due_ms[which - 1], "a deadline that has not passed, or was told before");
    life.due_ms[which - 1] = kNoDeadline;
  }

  void note_closed(Life& life, int32_t op, int32_t error) {
    life.closed++;
    EXPECT(error >= 0, "a negative errno");
    if (op == abi::kOpAbort) EXPECT(life.closing, "aborted, but nobody asked for it");
    if (op != abi::kOpNone) return;
    EXPECT(error == 0, "an error without an operation");
    EXPECT(life.finished_writing && life.connected, "closed, but nobody asked for it");
    EXPECT(life.socket->unpredictable || life.socket->sent == life.socket->output.written(),
           "closed before all was sent");
  }

  Kernel& kernel_;
  std::vector<uint8_t*> slabs_;
  std::vector<double> doubles_;
  std::vector<int32_t> words_;
  uint32_t next_pin_ = 1;
  bool in_dispatch_ = false;
  std::vector<Life*> living_;  // by index
  size_t living_count_ = 0;

 public:
  Reactor reactor;  // last: it goes first, and lets go of the memory above
};

}  // namespace edgewire::fuzz
