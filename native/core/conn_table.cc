#include "core/conn_table.h"

#include <cstdlib>
#include <new>
#include <type_traits>

#include "core/check.h"

namespace edgewire {

// realloc(3) moves them.
static_assert(std::is_trivially_copyable_v<Conn> && std::is_trivially_destructible_v<Conn>);

ConnTable::~ConnTable() { std::free(conns_); }

bool ConnTable::grow() noexcept {
  uint32_t capacity = capacity_ == 0 ? kRowsAtStart : capacity_ * 2;
  if (capacity > kRowsMax || !source_.grow_rows(capacity, &doubles_, &words_)) return false;
  void* memory = std::realloc(conns_, size_t{capacity} * sizeof(Conn));
  if (memory == nullptr) return false;
  conns_ = static_cast<Conn*>(memory);
  capacity_ = capacity;
  return true;
}

uint32_t ConnTable::allocate() noexcept {
  uint32_t index = free_head_;
  uint32_t generation = 0;
  if (index != kNoIndex) {
    free_head_ = conns_[index].listener;
    generation = conns_[index].generation;
  } else {
    if (rows_ == capacity_ && !grow()) return kNoIndex;
    index = rows_++;
  }
  Conn* conn = new (&conns_[index]) Conn{};
  conn->generation = generation;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double* doubles = row(index);
  doubles[abi::kRowReadDeadline] = kInfinity;
  doubles[abi::kRowWriteDeadline] = kInfinity;
  doubles[abi::kRowArmedAt] = kInfinity;
  doubles[abi::kRowIdleMs] = 0;
  doubles[abi::kRowSentBytes] = 0;
  doubles[abi::kRowReceivedBytes] = 0;
  int32_t* words = interest(index);
  words[abi::kInterestRead] = 0;
  words[abi::kInterestFlags] = 0;
  in_use_++;
  return index;
}

void ConnTable::free(uint32_t index) noexcept {
  EDGEWIRE_CHECK(index < rows() && in_use_ > 0);
  Conn& conn = conns_[index];
  conn.state = ConnState::kFree;
  // A token with every bit set is the poller's own (Poller::kWakeToken): the generation never gets there, because an
  // index below kRowsMax leaves bits of the low half clear.
  conn.generation++;
  conn.listener = free_head_;
  free_head_ = index;
  in_use_--;
}

}  // namespace edgewire
