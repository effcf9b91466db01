// A host for the reactor without JavaScript: memory from the C heap, and dispatch() plays lib/loop.ts. It takes the
// completions, keeps a Life for every connection, checks the order in which things are told, and lets the test's
// handler answer with commands.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/reactor.h"

namespace edgewire::test {

constexpr double kNoDeadline = std::numeric_limits<double>::infinity();

// A connection from its first completion (or dial) to kCompletionClosed, as JavaScript would know it.
struct Life {
  uint32_t index = kNoIndex;
  int32_t listener = -1;  // -1: dialed
  bool connected = false;
  bool ended = false;
  bool hung_up = false;
  bool closing = false;  // close() was asked for: no more data may come
  int closed = 0;        // how often kCompletionClosed came
  int closed_op = 0;
  int closed_errno = 0;
  int drains = 0;
  int flushes = 0;
  std::vector<int> timeouts;  // kDeadline...
  std::string received;
  uint64_t largest_read = 0;
  uint64_t written = 0;  // bytes commanded
  int tag = 0;           // the test's own
};

struct Event {
  int32_t type;
  Life& life;
  uint32_t address;        // of kCompletionData
  std::string_view bytes;  // of kCompletionData; lent until the handler returns
};

class FakeHost final : public Host {
 public:
  explicit FakeHost(uint64_t budget_bytes)
      : control_(abi::kControlWords),
        metrics_(abi::kMetricWords),
        completions_(abi::kCompletionCapacity),
        commands_(abi::kCommandCapacity),
        arena_(new uint8_t[abi::kArenaBytes]),
        reactor(*this, budget_bytes) {
    // The positions meet the border of the 32-bit space in every test.
    for (const int32_t word : {abi::kControlCompletionHead, abi::kControlCompletionTail, abi::kControlCommandHead,
                               abi::kControlCommandTail}) {
      control_[static_cast<size_t>(word)] = -7;
    }
    EXPECT_EQ(reactor.open({control_.data(), metrics_.data(), completions_.data(), commands_.data(), arena_.get()}), 0);
    reactor.pool().set_poison(true);
  }

  // ---- Host ---------------------------------------------------------------------------------------------------------

  uint8_t* acquire_slab(uint32_t index) noexcept override {
    if (refuse_slabs && refuse_slabs()) return nullptr;
    auto& slab = slabs_[index];
    slab.reset(new uint8_t[kSlabBytes]);
    return slab.get();
  }
  void release_slab(uint32_t index) noexcept override { EXPECT_EQ(slabs_.erase(index), 1u); }

  bool grow_rows(uint32_t rows, double** doubles, int32_t** words) noexcept override {
    if (refuse_rows && refuse_rows()) return false;
    auto more_doubles = std::make_unique<double[]>(size_t{rows} * abi::kRowWords);
    auto more_words = std::make_unique<int32_t[]>(size_t{rows} * abi::kInterestWords);
    std::copy_n(doubles_.get(), size_t{rows_} * abi::kRowWords, more_doubles.get());
    std::copy_n(words_.get(), size_t{rows_} * abi::kInterestWords, more_words.get());
    doubles_ = std::move(more_doubles);
    words_ = std::move(more_words);
    rows_ = rows;
    *doubles = doubles_.get();
    *words = words_.get();
    return true;
  }

  const uint8_t* pinned(uint32_t id, size_t* bytes) noexcept override {
    EXPECT_EQ(pins.count(id), 1u) << "pin " << id << " was asked for after unpin()";
    *bytes = pins[id].size();
    return pins[id].empty() ? nullptr : reinterpret_cast<const uint8_t*>(pins[id].data());
  }
  void unpin(uint32_t id) noexcept override { EXPECT_EQ(pins.erase(id), 1u) << "pin " << id << " let go twice"; }

  void dispatch() noexcept override {
    dispatches += 1;
    dispatch_records = 0;
    int32_t& head = control_[abi::kControlCompletionHead];
    while (head != control_[abi::kControlCompletionTail] && dispatch_records < records_max) {
      const Record record = completions_[static_cast<uint32_t>(head) & (abi::kCompletionCapacity - 1)];
      head = static_cast<int32_t>(static_cast<uint32_t>(head) + 1);
      dispatch_records += 1;
      serve(record);
    }
    if (after_dispatch) after_dispatch();
  }

  // ---- what JavaScript does -----------------------------------------------------------------------------------------

  void push(int32_t type, uint32_t subject, int32_t a = 0, int32_t b = 0) {
    if (has_full_commands()) reactor.flush();
    const auto tail = static_cast<uint32_t>(control_[abi::kControlCommandTail]);
    commands_[tail & (abi::kCommandCapacity - 1)] = Record{type, static_cast<int32_t>(subject), a, b};
    control_[abi::kControlCommandTail] = static_cast<int32_t>(tail + 1);
  }

  void write(Life& life, std::string_view bytes) {
    life.written += bytes.size();
    while (!bytes.empty()) {
      int32_t& used = control_[abi::kControlArenaUsed];
      if (used == abi::kArenaBytes || has_full_commands()) reactor.flush();
      const int32_t at = used;
      const size_t count = std::min<size_t>(bytes.size(), static_cast<size_t>(abi::kArenaBytes - at));
      std::memcpy(arena_.get() + at, bytes.data(), count);
      used = at + static_cast<int32_t>(count);
      push(abi::kCommandWriteArena, life.index, at, static_cast<int32_t>(count));
      bytes.remove_prefix(count);
    }
  }
  void write_slab(Life& life, uint32_t address, size_t bytes) {
    life.written += bytes;
    push(abi::kCommandWriteSlab, life.index, static_cast<int32_t>(address), static_cast<int32_t>(bytes));
  }
  // `how`: 0, or kPinBriefly for memory that is written again as soon as the batch is executed.
  uint32_t write_pinned(Life& life, std::string bytes, int32_t how = 0) {
    life.written += bytes.size();
    const uint32_t id = next_pin_++;
    const auto count = static_cast<int32_t>(bytes.size());
    pins[id] = std::move(bytes);
    push(abi::kCommandWritePinned | how << 8, life.index, static_cast<int32_t>(id), count);
    return id;
  }

  void close_write(const Life& life) { push(abi::kCommandCloseWrite, life.index); }
  void close(Life& life, int32_t linger_ms = 5'000) {
    life.closing = true;
    push(abi::kCommandClose, life.index, linger_ms);
  }
  void abort(Life& life) {
    life.closing = true;
    push(abi::kCommandAbort, life.index);
  }

  // 0: pause, kReadStream, or n > 0: one read of at most n bytes.
  void set_interest(const Life& life, int32_t bytes) {
    int32_t* const words = reactor.connections().interest(life.index);
    words[abi::kInterestRead] = bytes;
    if (bytes != 0 && (words[abi::kInterestFlags] & abi::kFlagReadable) != 0) push(abi::kCommandRead, life.index);
  }
  void want(const Life& life, int32_t flag) { reactor.connections().interest(life.index)[abi::kInterestFlags] |= flag; }
  void set_deadline(const Life& life, int32_t row_word, double at_ms) {
    double* const row = reactor.connections().row(life.index);
    row[row_word] = at_ms;
    if (at_ms >= row[abi::kRowArmedAt]) return;
    row[abi::kRowArmedAt] = at_ms;
    push(abi::kCommandArm, life.index);
  }
  void set_idle_timeout(const Life& life, double ms) {
    reactor.connections().row(life.index)[abi::kRowIdleMs] = ms;
    push(abi::kCommandArm, life.index, 1);
  }
  uint64_t sent_bytes(const Life& life) {
    return static_cast<uint64_t>(reactor.connections().row(life.index)[abi::kRowSentBytes]);
  }

  void retain(uint32_t address) {
    leases.push_back(address >> kChunkBytesLog2);
    push(abi::kCommandRetain, leases.back());
  }
  void release(size_t which) {
    push(abi::kCommandRelease, leases[which]);
    leases.erase(leases.begin() + static_cast<ptrdiff_t>(which));
  }

  Life* dial(const SocketAddress& to, int* error = nullptr) { return dial(to, DialOptions{}, error); }
  Life* dial(const SocketAddress& to, DialOptions options, int* error = nullptr) {
    options.low_water_bytes = low_water_bytes;
    const int index = reactor.dial(to, options);
    if (error != nullptr) *error = index;
    return index < 0 ? nullptr : &begin(static_cast<uint32_t>(index), -1);
  }

  // ---- what the test looks at ---------------------------------------------------------------------------------------

  Life* living(uint32_t index) { return living_.count(index) != 0 ? living_[index] : nullptr; }
  size_t living_count() const { return living_.size(); }
  std::vector<Life*> all_living() const {
    std::vector<Life*> all;
    for (const auto& [index, life] : living_) all.push_back(life);
    return all;
  }
  double metric(int32_t word) const { return metrics_[static_cast<size_t>(word)]; }
  bool has_full_commands() const {
    return static_cast<uint32_t>(control_[abi::kControlCommandTail]) -
               static_cast<uint32_t>(control_[abi::kControlCommandHead]) >=
           uint32_t{abi::kCommandCapacity};
  }
  const uint8_t* at(uint32_t address) {
    return reactor.pool().data(address >> kChunkBytesLog2) + (address & (kChunkBytes - 1));
  }

  std::function<void(Event&)> handle;          // sees every completion of a connection
  std::function<void(int, int)> accept_error;  // listener, errno
  std::function<void()> after_dispatch;
  std::function<bool()> refuse_slabs;
  std::function<bool()> refuse_rows;
  bool keep_bytes = true;  // append data to Life::received
  bool acknowledge = true;
  uint32_t low_water_bytes = 32 * 1024;
  int32_t first_interest = abi::kReadStream;  // of an accepted connection
  int dispatches = 0;
  uint32_t dispatch_records = 0;
  uint32_t records_max = UINT32_MAX;  // taken in one dispatch; the rest stays in the ring
  std::map<uint32_t, std::string> pins;
  std::vector<ChunkId> leases;               // retained by the test
  std::vector<std::unique_ptr<Life>> lives;  // all there ever were, oldest first

 private:
  Life& begin(uint32_t index, int32_t listener) {
    EXPECT_EQ(living_.count(index), 0u) << "index " << index << " is in use";
    lives.push_back(std::make_unique<Life>());
    Life& life = *lives.back();
    life.index = index;
    life.listener = listener;
    living_[index] = &life;
    return life;
  }

  void serve(const Record& record) {
    const auto index = static_cast<uint32_t>(record.subject);
    if (record.type() == abi::kCompletionAcceptError) {
      if (accept_error) accept_error(record.subject, record.a);
      return;
    }
    if (record.type() == abi::kCompletionAccepted) set_interest(begin(index, record.a), first_interest);
    Life* const life = living(index);
    ASSERT_NE(life, nullptr) << "completion " << record.type() << " for nobody";
    Event event{record.type(), *life, 0, {}};
    note(record, *life, event);
    if (record.type() != abi::kCompletionClosed) {
      if (handle) handle(event);
      return;
    }
    living_.erase(index);
    if (handle) handle(event);
    if (acknowledge) push(abi::kCommandAcknowledge, index);
  }

  void note(const Record& record, Life& life, Event& event) {
    const bool dialing = life.listener < 0 && !life.connected;
    if (dialing && record.type() != abi::kCompletionTimeout && record.type() != abi::kCompletionClosed) {
      EXPECT_EQ(record.type(), abi::kCompletionConnected) << "told before kCompletionConnected";
    }
    switch (record.type()) {
      case abi::kCompletionAccepted: break;
      case abi::kCompletionConnected:
        EXPECT_FALSE(life.connected);
        life.connected = true;
        break;
      case abi::kCompletionData: note_data(record, life, event); break;
      case abi::kCompletionEnd:
        EXPECT_FALSE(life.ended);
        life.ended = true;
        break;
      case abi::kCompletionHangup:
        EXPECT_FALSE(life.hung_up);
        life.hung_up = true;
        break;
      case abi::kCompletionDrain: life.drains += 1; break;
      case abi::kCompletionFlushed: life.flushes += 1; break;
      case abi::kCompletionTimeout: life.timeouts.push_back(record.head >> 8); break;
      case abi::kCompletionClosed:
        life.closed += 1;
        life.closed_op = record.head >> 8;
        life.closed_errno = record.a;
        break;
      default: ADD_FAILURE() << "unknown completion " << record.type();
    }
  }

  void note_data(const Record& record, Life& life, Event& event) {
    EXPECT_FALSE(life.ended) << "data after the end";
    EXPECT_GT(record.b, 0);
    event.address = static_cast<uint32_t>(record.a);
    ASSERT_TRUE(reactor.pool().in_use(event.address >> kChunkBytesLog2));
    EXPECT_LE((event.address & (kChunkBytes - 1)) + static_cast<uint32_t>(record.b), kChunkBytes);
    EXPECT_EQ(event.address % 8, 0u) << "lent bytes are aligned";
    event.bytes = {reinterpret_cast<const char*>(at(event.address)), static_cast<size_t>(record.b)};
    life.largest_read = std::max<uint64_t>(life.largest_read, event.bytes.size());
    if (keep_bytes) life.received.append(event.bytes);
  }

  std::vector<int32_t> control_;
  std::vector<double> metrics_;
  std::vector<Record> completions_;
  std::vector<Record> commands_;
  std::unique_ptr<uint8_t[]> arena_;
  std::map<uint32_t, std::unique_ptr<uint8_t[]>> slabs_;
  std::unique_ptr<double[]> doubles_;
  std::unique_ptr<int32_t[]> words_;
  uint32_t rows_ = 0;
  uint32_t next_pin_ = 1;
  std::map<uint32_t, Life*> living_;

 public:
  Reactor reactor;  // last: it goes first, and lets go of the memory above
};

}  // namespace edgewire::test
