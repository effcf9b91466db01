// A host for the reactor that plays the cheapest JavaScript there could be: it takes the completions and answers with
// commands, and looks at no byte. What it costs is not counted: see core_cost.cc.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "core/reactor.h"

namespace edgewire::bench {

// What a server does with what it is told.
class Service {
 public:
  virtual ~Service() = default;
  virtual void accepted(uint32_t conn) = 0;
  virtual void data(uint32_t conn, uint32_t address, uint32_t bytes) = 0;
  virtual void ended(uint32_t conn) = 0;
};

class CoreHost final : public Host {
 public:
  explicit CoreHost(Service& service)
      : service_(service),
        control_(abi::kControlWords),
        metrics_(abi::kMetricWords),
        completions_(abi::kCompletionCapacity),
        commands_(abi::kCommandCapacity),
        arena_(new uint8_t[abi::kArenaBytes]()),
        reactor(*this, uint64_t{64} * kSlabBytes) {
    if (reactor.open({control_.data(), metrics_.data(), completions_.data(), commands_.data(), arena_.get()}) != 0) {
      std::abort();
    }
  }

  // ---- what JavaScript does -------------------------------------------------------------------------------------------

  void push(int32_t type, uint32_t subject, int32_t a = 0, int32_t b = 0) {
    auto tail = static_cast<uint32_t>(control_[abi::kControlCommandTail]);
    if (tail - static_cast<uint32_t>(control_[abi::kControlCommandHead]) >= uint32_t{abi::kCommandCapacity}) {
      reactor.flush();
      tail = static_cast<uint32_t>(control_[abi::kControlCommandTail]);
    }
    commands_[tail & (abi::kCommandCapacity - 1)] = Record{type, static_cast<int32_t>(subject), a, b};
    control_[abi::kControlCommandTail] = static_cast<int32_t>(tail + 1);
  }
  void write_arena(uint32_t conn, uint32_t bytes) {
    if (control_[abi::kControlArenaUsed] + static_cast<int32_t>(bytes) > abi::kArenaBytes) reactor.flush();
    const int32_t used = control_[abi::kControlArenaUsed];
    control_[abi::kControlArenaUsed] = used + static_cast<int32_t>(bytes);
    push(abi::kCommandWriteArena, conn, used, static_cast<int32_t>(bytes));
  }
  void write_lent(uint32_t conn, uint32_t address, uint32_t bytes) {
    push(abi::kCommandWriteSlab, conn, static_cast<int32_t>(address), static_cast<int32_t>(bytes));
  }
  // As setInterest() in lib/conn.ts.
  void ask_for(uint32_t conn, int32_t bytes) {
    int32_t* const words = reactor.connections().interest(conn);
    words[abi::kInterestRead] = bytes;
    if (bytes != 0 && (words[abi::kInterestFlags] & abi::kFlagReadable) != 0) push(abi::kCommandRead, conn);
  }
  // As storeDeadline() in lib/deadline.ts.
  void set_read_deadline(uint32_t conn, double at_ms) {
    double* const row = reactor.connections().row(conn);
    row[abi::kRowReadDeadline] = at_ms;
    if (at_ms >= row[abi::kRowArmedAt]) return;
    row[abi::kRowArmedAt] = at_ms;
    push(abi::kCommandArm, conn);
  }

  // ---- Host -----------------------------------------------------------------------------------------------------------

  void dispatch() noexcept override {
    int32_t& head = control_[abi::kControlCompletionHead];
    while (head != control_[abi::kControlCompletionTail]) {
      const Record record = completions_[static_cast<uint32_t>(head) & (abi::kCompletionCapacity - 1)];
      head = static_cast<int32_t>(static_cast<uint32_t>(head) + 1);
      const auto conn = static_cast<uint32_t>(record.subject);
      switch (record.type()) {
        case abi::kCompletionAccepted: service_.accepted(conn); break;
        case abi::kCompletionData:
          service_.data(conn, static_cast<uint32_t>(record.a), static_cast<uint32_t>(record.b));
          break;
        case abi::kCompletionEnd: service_.ended(conn); break;
        case abi::kCompletionClosed:
          closed++;
          push(abi::kCommandAcknowledge, conn);
          break;
        default: break;
      }
    }
  }
  uint8_t* acquire_slab(uint32_t index) noexcept override {
    if (index >= slabs_.size()) slabs_.resize(index + 1);
    slabs_[index] = std::make_unique<uint8_t[]>(kSlabBytes);
    return slabs_[index].get();
  }
  void release_slab(uint32_t index) noexcept override { slabs_[index].reset(); }
  bool grow_rows(uint32_t rows, double** doubles, int32_t** words) noexcept override {
    doubles_.resize(size_t{rows} * abi::kRowWords);
    words_.resize(size_t{rows} * abi::kInterestWords);
    *doubles = doubles_.data();
    *words = words_.data();
    return true;
  }
  const uint8_t* pinned(uint32_t, size_t*) noexcept override { return nullptr; }  // no load pins
  void unpin(uint32_t) noexcept override {}

  uint64_t closed = 0;  // connections that are over

 private:
  Service& service_;
  std::vector<int32_t> control_;
  std::vector<double> metrics_;
  std::vector<Record> completions_;
  std::vector<Record> commands_;
  std::unique_ptr<uint8_t[]> arena_;
  std::vector<std::unique_ptr<uint8_t[]>> slabs_;
  std::vector<double> doubles_;
  std::vector<int32_t> words_;

 public:
  Reactor reactor;  // last: it goes first, and lets go of the memory above
};

}  // namespace edgewire::bench
