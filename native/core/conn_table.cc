#include "core/conn_table.h"

#include <algorithm>

#include "core/check.h"

namespace edgewire {

bool ConnTable::grow() noexcept {
  uint32_t old_rows = rows();
  uint32_t step = old_rows < kRowsToDouble ? std::max(old_rows, kRowsAtStart) : old_rows / 4;
  uint32_t new_rows = old_rows + step;
  if (new_rows > kRowsMax) return false;
  if (!source_.grow_rows(new_rows, &doubles_, &words_)) return false;
  conns_.reserve(new_rows);  // exactly: resize() alone may take twice as much
  conns_.resize(new_rows);
  free_.reserve(new_rows);
  for (uint32_t index = new_rows; index-- > old_rows;) free_.push_back(index);
  return true;
}

uint32_t ConnTable::allocate() noexcept {
  if (free_.empty() && !grow()) return kNoIndex;
  uint32_t index = free_.back();
  free_.pop_back();
  uint32_t generation = conns_[index].generation;
  conns_[index] = Conn{};
  conns_[index].generation = generation;
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
  free_.push_back(index);
  in_use_--;
}

}  // namespace edgewire
