// A hierarchical timer wheel: ticks of 1 ms, O(1) to arm, move and disarm, no allocation but growth.
//
// Ids are small dense integers (edgewire uses the connection's index); each id has at most one entry. Times are
// milliseconds of any monotonic clock. An entry never fires early: it fires in the first advance(now) with
// now >= its time, and in one advance() entries fire in no promised order. The wheel knows nothing of deadlines:
// the reactor moves an entry lazily, that is only when it fires and finds its connection's deadline further ahead.
//
// Level 0 has 256 slots of 1 ms, each level above it 64 slots, each as wide as the whole level below:
//   level 0  256 x 1 ms          level 2  64 x 16.384 s      level 4  64 x 18.6 h  (49.7 days)
//   level 1   64 x 256 ms        level 3  64 x 17.5 min
// What lies further ahead than the top level waits in its last slot and is placed again when that slot comes up.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace edgewire {

class TimerWheel {
 public:
  static constexpr uint64_t kNever = UINT64_MAX;

  explicit TimerWheel(uint64_t now_ms);

  // Makes ids 0 .. count-1 valid. Entries that are armed stay armed.
  void reserve(uint32_t count);

  // Arms `id` for `when_ms`, or moves it there. A time that is not after the wheel's own fires in the next advance().
  void arm(uint32_t id, uint64_t when_ms) noexcept;
  void disarm(uint32_t id) noexcept;  // no effect when it is not armed
  bool armed(uint32_t id) const noexcept;
  uint64_t when_ms(uint32_t id) const noexcept;  // kNever when it is not armed
  uint32_t size() const noexcept;                // entries armed

  // The earliest time at which advance() may have something to do: never later than the first entry, and possibly
  // earlier (an entry of a high level must first move down). kNever when nothing is armed. O(levels).
  uint64_t next_ms() const noexcept;

  // Moves the wheel to `now_ms` (a time before the wheel's own has no effect) and appends to `fired` every id whose
  // time has come; those are disarmed before advance() returns. Costs O(slots passed, at most a few hundred whatever
  // the distance, + entries moved or fired).
  void advance(uint64_t now_ms, std::vector<uint32_t>& fired);

 private:
  // An entry lies at the level of the highest bit in which its time differs from now_. So inside a level every entry
  // is ahead of now_'s own slot and no level ever wraps around: the first occupied slot of the lowest occupied level
  // holds the earliest entry, and advance() needs one mask per level instead of a walk over ticks.
  static constexpr uint32_t kLevels = 5;
  static constexpr uint32_t kSlotsLog2 = 6;        // of every level but level 0
  static constexpr uint32_t kLevel0SlotsLog2 = 8;  // four words of the bitmap; the other levels have one each
  static constexpr uint32_t kLevel0Slots = 1u << kLevel0SlotsLog2;
  static constexpr uint32_t kSlots = 1u << kSlotsLog2;
  static constexpr uint32_t kWheelSlots = kLevel0Slots + (kLevels - 1) * kSlots;
  static constexpr uint32_t kSpanLog2 = kLevel0SlotsLog2 + (kLevels - 1) * kSlotsLog2;  // 2^32 ms, one round

  // Two lists beside the levels: what lies beyond this round of the top level, and what was armed too late.
  static constexpr uint32_t kBeyondSlot = kWheelSlots;
  static constexpr uint32_t kOverdueSlot = kWheelSlots + 1;
  static constexpr uint32_t kAllSlots = kWheelSlots + 2;
  static constexpr uint32_t kUnarmed = UINT32_MAX;  // Node::slot
  static constexpr uint32_t kNoId = UINT32_MAX;     // ends of a list

  static constexpr uint32_t kWordBits = 64;
  static constexpr uint32_t kLevel0Words = kLevel0Slots / kWordBits;
  static constexpr uint32_t kWheelWords = kWheelSlots / kWordBits;
  static_assert(kSlots == kWordBits, "a level above 0 is one word of the bitmap");

  struct Node {
    uint64_t when_ms = kNever;
    uint32_t next = kNoId;
    uint32_t previous = kNoId;
    uint32_t slot = kUnarmed;
  };
  static_assert(sizeof(Node) <= 24);

  static constexpr uint32_t slot_width_log2(uint32_t level) {
    return level == 0 ? 0 : kLevel0SlotsLog2 + (level - 1) * kSlotsLog2;
  }

  uint32_t slot_for(uint64_t when_ms) const noexcept;
  void link(uint32_t id, uint32_t slot) noexcept;
  void unlink(uint32_t id) noexcept;
  bool occupied(uint32_t slot) const noexcept;
  void drain(uint32_t slot, std::vector<uint32_t>& fired);
  void drain_word(uint32_t word, uint32_t last_bit, std::vector<uint32_t>& fired);

  uint64_t now_;
  uint32_t size_ = 0;
  std::vector<Node> nodes_;                                      // by id
  std::array<uint32_t, kAllSlots> heads_;                        // first id of each slot's list
  std::array<uint64_t, kAllSlots / kWordBits + 1> occupancy_{};  // a bit per slot: its list is not empty
};

}  // namespace edgewire
