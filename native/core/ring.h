// A ring of fixed-size records in memory shared with JavaScript, one producer and one consumer on one thread.
//
// The positions live in the control block and count records, never slots: they run freely through the 32-bit space and
// their difference is the fill, also across the wrap. Capacity is a power of two.
#pragma once

#include <cstdint>

#include "abi.h"
#include "core/check.h"

namespace edgewire {

struct Record {
  int32_t head;  // type | detail << 8
  int32_t subject;
  int32_t a;
  int32_t b;

  int32_t type() const noexcept { return head & 0xff; }
  int32_t detail() const noexcept { return head >> 8; }
};
static_assert(sizeof(Record) == abi::kRecordWords * sizeof(int32_t));

class RecordRing {
 public:
  RecordRing() = default;
  // `records` holds `capacity` records; `head` and `tail` are words of the control block. All stay the caller's.
  RecordRing(Record* records, uint32_t capacity, int32_t* head, int32_t* tail)
      : records_(records), mask_(capacity - 1), head_(head), tail_(tail) {
    EDGEWIRE_CHECK(capacity != 0 && (capacity & (capacity - 1)) == 0);
  }

  uint32_t capacity() const noexcept { return mask_ + 1; }
  // A consumer that JavaScript corrupts could claim more than the capacity; what is then read is still inside the ring.
  uint32_t size() const noexcept { return static_cast<uint32_t>(*tail_) - static_cast<uint32_t>(*head_); }
  uint32_t space() const noexcept {
    uint32_t used = size();
    return used >= capacity() ? 0 : capacity() - used;
  }
  bool empty() const noexcept { return *head_ == *tail_; }

  bool push(const Record& record) noexcept {
    if (space() == 0) return false;
    records_[static_cast<uint32_t>(*tail_) & mask_] = record;
    *tail_ = static_cast<int32_t>(static_cast<uint32_t>(*tail_) + 1);
    return true;
  }

  bool pop(Record* record) noexcept {
    if (empty()) return false;
    *record = records_[static_cast<uint32_t>(*head_) & mask_];
    *head_ = static_cast<int32_t>(static_cast<uint32_t>(*head_) + 1);
    return true;
  }

  // The record `ahead` places behind the head, without taking it.
  const Record& peek(uint32_t ahead) const noexcept {
    return records_[(static_cast<uint32_t>(*head_) + ahead) & mask_];
  }
  void drop(uint32_t count) noexcept { *head_ = static_cast<int32_t>(static_cast<uint32_t>(*head_) + count); }

 private:
  Record* records_ = nullptr;
  uint32_t mask_ = 0;
  int32_t* head_ = nullptr;
  int32_t* tail_ = nullptr;
};

}  // namespace edgewire
