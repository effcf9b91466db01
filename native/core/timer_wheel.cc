#include "core/timer_wheel.h"

#include <algorithm>
#include <bit>

#include "core/check.h"

namespace edgewire {

TimerWheel::TimerWheel(uint64_t now_ms) : now_(now_ms) { heads_.fill(kNoId); }

void TimerWheel::reserve(uint32_t count) {
  if (count > nodes_.size()) nodes_.resize(count);
}

void TimerWheel::arm(uint32_t id, uint64_t when_ms) noexcept {
  if (when_ms == kNever) return disarm(id);
  EDGEWIRE_CHECK(id < nodes_.size());
  Node& node = nodes_[id];
  node.when_ms = when_ms;
  const uint32_t slot = slot_for(when_ms);
  if (slot == node.slot) return;

  if (node.slot == kUnarmed) {
    size_ += 1;
  } else {
    unlink(id);
  }
  link(id, slot);
}

void TimerWheel::disarm(uint32_t id) noexcept {
  if (id >= nodes_.size()) return;  // never armed
  Node& node = nodes_[id];
  if (node.slot == kUnarmed) return;
  unlink(id);
  node.slot = kUnarmed;
  node.when_ms = kNever;
  size_ -= 1;
}

bool TimerWheel::armed(uint32_t id) const noexcept { return when_ms(id) != kNever; }

uint64_t TimerWheel::when_ms(uint32_t id) const noexcept {
  EDGEWIRE_CHECK(id < nodes_.size());
  return nodes_[id].when_ms;
}

uint32_t TimerWheel::size() const noexcept { return size_; }

uint64_t TimerWheel::next_ms() const noexcept {
  if (size_ == 0) return kNever;
  // Not the entry's own time, which is past: advance() to a time before now_ does nothing.
  if (occupied(kOverdueSlot)) return now_;

  for (uint32_t word = 0; word < kWheelWords; ++word) {
    if (occupancy_[word] == 0) continue;
    // Where the slot begins: now_'s bits above the level, the slot's number, zeros below.
    const uint32_t level = word < kLevel0Words ? 0 : word - kLevel0Words + 1;
    const uint32_t slot_bits = level == 0 ? kLevel0SlotsLog2 : kSlotsLog2;
    const uint32_t width_log2 = slot_width_log2(level);
    const uint64_t first_bit = static_cast<uint64_t>(std::countr_zero(occupancy_[word]));
    const uint64_t slot = level == 0 ? word * kWordBits + first_bit : first_bit;
    const uint32_t level_end = width_log2 + slot_bits;
    return (now_ >> level_end << level_end) + (slot << width_log2);
  }
  // Only the list beyond is left; it comes up when the top level's next round begins. That this cannot overflow
  // follows from an entry being there: its time is in a later round than now_.
  return ((now_ >> kSpanLog2) + 1) << kSpanLog2;
}

void TimerWheel::advance(uint64_t now_ms, std::vector<uint32_t>& fired) {
  if (now_ms < now_) return;
  const uint64_t changed = now_ ^ now_ms;
  // Set first: drain() fires and places against the new time. What it places lands in a level that is done already,
  // ahead of now_'s slot there, so one pass from the bottom up is enough.
  now_ = now_ms;
  if (size_ == 0) return;
  if (occupied(kOverdueSlot)) drain(kOverdueSlot, fired);

  // Where the bits above a level changed, the whole level has passed; else its slots up to now_'s.
  const bool level0_passed = changed >> kLevel0SlotsLog2 != 0;
  const uint32_t level0_last = level0_passed ? kLevel0Slots - 1 : static_cast<uint32_t>(now_ % kLevel0Slots);
  for (uint32_t word = 0; word * kWordBits <= level0_last; ++word) {
    drain_word(word, std::min(level0_last - word * kWordBits, kWordBits - 1), fired);
  }
  for (uint32_t level = 1; level < kLevels; ++level) {
    const uint32_t width_log2 = slot_width_log2(level);
    if (changed >> width_log2 == 0) return;  // still in the same slot, here and in every level above
    const bool passed = changed >> width_log2 >> kSlotsLog2 != 0;
    const uint32_t last = passed ? kSlots - 1 : static_cast<uint32_t>((now_ >> width_log2) % kSlots);
    drain_word(kLevel0Words + level - 1, last, fired);
  }
  if (changed >> kSpanLog2 != 0) drain(kBeyondSlot, fired);
}

uint32_t TimerWheel::slot_for(uint64_t when_ms) const noexcept {
  if (when_ms <= now_) return kOverdueSlot;
  const uint64_t differing = when_ms ^ now_;
  if (differing < kLevel0Slots) return static_cast<uint32_t>(when_ms % kLevel0Slots);
  if (differing >> kSpanLog2 != 0) return kBeyondSlot;

  const uint32_t highest_bit = static_cast<uint32_t>(std::bit_width(differing)) - 1;
  const uint32_t level = (highest_bit - kLevel0SlotsLog2) / kSlotsLog2 + 1;
  const uint32_t slot = static_cast<uint32_t>((when_ms >> slot_width_log2(level)) % kSlots);
  return kLevel0Slots + (level - 1) * kSlots + slot;
}

void TimerWheel::link(uint32_t id, uint32_t slot) noexcept {
  Node& node = nodes_[id];
  const uint32_t head = heads_[slot];
  node.slot = slot;
  node.previous = kNoId;
  node.next = head;
  if (head != kNoId) nodes_[head].previous = id;
  heads_[slot] = id;
  occupancy_[slot / kWordBits] |= uint64_t{1} << slot % kWordBits;
}

void TimerWheel::unlink(uint32_t id) noexcept {
  const Node& node = nodes_[id];
  if (node.next != kNoId) nodes_[node.next].previous = node.previous;
  if (node.previous != kNoId) {
    nodes_[node.previous].next = node.next;
    return;
  }
  heads_[node.slot] = node.next;
  if (node.next == kNoId) occupancy_[node.slot / kWordBits] &= ~(uint64_t{1} << node.slot % kWordBits);
}

bool TimerWheel::occupied(uint32_t slot) const noexcept { return heads_[slot] != kNoId; }

// Empties a slot: what is due fires, the rest is placed again, nearer to the bottom.
void TimerWheel::drain(uint32_t slot, std::vector<uint32_t>& fired) {
  uint32_t id = heads_[slot];
  // The whole list is taken off first: what lies beyond may be placed into the very same slot again.
  heads_[slot] = kNoId;
  occupancy_[slot / kWordBits] &= ~(uint64_t{1} << slot % kWordBits);
  while (id != kNoId) {
    Node& node = nodes_[id];
    const uint32_t next = node.next;
    if (node.when_ms <= now_) {
      node.slot = kUnarmed;
      node.when_ms = kNever;
      size_ -= 1;
      fired.push_back(id);
    } else {
      link(id, slot_for(node.when_ms));
    }
    id = next;
  }
}

// Drains the occupied slots of one bitmap word, up to and including `last_bit`.
void TimerWheel::drain_word(uint32_t word, uint32_t last_bit, std::vector<uint32_t>& fired) {
  uint64_t bits = occupancy_[word] & (UINT64_MAX >> (kWordBits - 1 - last_bit));
  for (; bits != 0; bits &= bits - 1) {
    drain(word * kWordBits + static_cast<uint32_t>(std::countr_zero(bits)), fired);
  }
}

}  // namespace edgewire
