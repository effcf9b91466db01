// The timer wheel against a sorted set: whatever is armed, moved and disarmed, an entry fires in the first advance()
// that reaches its time, once.
#include "core/timer_wheel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace edgewire::test {

uint64_t seed();  // main.cc

namespace {

constexpr uint64_t kNever = TimerWheel::kNever;
constexpr uint32_t kLevels = 5;
constexpr uint64_t kDayMs = 86'400'000;
constexpr uint32_t kRoundLog2 = 32;  // what all levels span: 2^32 ms, 49.7 days
constexpr uint64_t kRoundMs = uint64_t{1} << kRoundLog2;
// The width of a slot of each level, and of the whole wheel.
constexpr std::array<uint32_t, 6> kBorderLog2 = {0, 8, 14, 20, 26, kRoundLog2};

uint64_t later(uint64_t now, uint64_t by) { return by < kNever - 1 - now ? now + by : kNever - 1; }

// Times and steps where a wheel goes wrong: at borders, one beside them, far away.
class Chooser {
 public:
  explicit Chooser(uint64_t seed) : random_(seed) {}

  uint64_t below(uint64_t limit) { return random_() % limit; }

  uint64_t time(uint64_t now) {
    switch (below(10)) {
      case 0: return now;
      case 1: return now - std::min(now, below(1000));
      case 2: return later(now, 1 + below(3));
      case 3: return later(now, below(300));
      case 4: return beside(later(now, uint64_t{1} << border_log2()));
      case 5: return later(now, 30'000);
      case 6: return later(now, below(uint64_t{1} << below(36)) + 1);
      case 7: return later(now, below(400) * kDayMs);
      case 8: return below(8) == 0 ? kNever - 1 - below(3) : next_border(later(now, below(kDayMs)));
      default: return next_border(now);
    }
  }

  uint64_t step() {
    const uint64_t dice = below(400);
    if (dice < 1) return below(uint64_t{1} << below(40)) + 1;
    if (dice < 2) return below(1000) * kDayMs;
    if (dice < 10) return beside(uint64_t{1} << border_log2());
    if (dice < 30) return below(20'000);
    if (dice < 60) return beside(256);
    if (dice < 100) return 0;
    return below(2) == 0 ? 1 : below(40);
  }

  uint64_t start() {
    // The last one is four rounds of the top level before the end of time.
    const std::array<uint64_t, 6> starts = {
        0, 1'000'000, kRoundMs - 3, 7 * kRoundMs + 255, kNever / 2, kNever - 4 * kRoundMs};
    return starts[below(starts.size())];
  }

  // The next time at which a slot of some level begins, or one beside it.
  uint64_t next_border(uint64_t now) {
    const uint32_t log2 = border_log2();
    const uint64_t slot = now >> log2;
    return slot >= (kNever - 1) >> log2 ? kNever - 1 : beside((slot + 1) << log2);
  }

 private:
  uint32_t border_log2() { return kBorderLog2[below(kBorderLog2.size())]; }
  // `value`, which is not 0, or one less or more.
  uint64_t beside(uint64_t value) { return std::min(value - 1 + below(3), kNever - 1); }

  std::mt19937_64 random_;
};

// The wheel and a naive model side by side; every call compares them.
class CheckedWheel {
 public:
  CheckedWheel(uint64_t now, uint32_t count) : now_(now), when_(count, kNever), wheel_(now) { wheel_.reserve(count); }

  void arm(uint32_t id, uint64_t when) {
    order_.erase({when_[id], id});
    order_.insert({when, id});
    when_[id] = when;
    wheel_.arm(id, when);
    check(id);
  }

  void disarm(uint32_t id) {
    order_.erase({when_[id], id});
    when_[id] = kNever;
    wheel_.disarm(id);
    check(id);
  }

  // Returns how many fired.
  size_t advance(uint64_t to) {
    const bool backwards = to < now_;
    now_ = std::max(now_, to);
    std::vector<uint32_t> expected;
    while (!backwards && !order_.empty() && order_.begin()->first <= now_) {
      const uint32_t id = order_.begin()->second;
      expected.push_back(id);
      when_[id] = kNever;
      order_.erase(order_.begin());
    }
    fired_.clear();
    wheel_.advance(to, fired_);
    std::sort(fired_.begin(), fired_.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(fired_, expected) << "at " << now_;
    for (const uint32_t id : fired_) check(id);
    check_next();
    return fired_.size();
  }

  void reserve(uint32_t count) {
    when_.resize(std::max<size_t>(count, when_.size()), kNever);
    wheel_.reserve(count);
  }

  void check_all() {
    for (uint32_t id = 0; id < when_.size(); ++id) check(id);
  }

  uint64_t now() const { return now_; }
  uint64_t next_ms() const { return wheel_.next_ms(); }
  uint64_t earliest() const { return order_.empty() ? kNever : order_.begin()->first; }
  uint32_t count() const { return static_cast<uint32_t>(when_.size()); }

 private:
  void check(uint32_t id) {
    EXPECT_EQ(wheel_.when_ms(id), when_[id]) << "id " << id;
    EXPECT_EQ(wheel_.armed(id), when_[id] != kNever) << "id " << id;
    EXPECT_EQ(wheel_.size(), order_.size());
    check_next();
  }

  // Never after the first entry, and never a time that is already here unless something is overdue: a caller that
  // sleeps until next_ms() must neither oversleep nor spin.
  void check_next() {
    const uint64_t next = wheel_.next_ms();
    if (order_.empty()) {
      EXPECT_EQ(next, kNever);
    } else if (earliest() <= now_) {
      EXPECT_EQ(next, now_);
    } else {
      EXPECT_LE(next, earliest());
      EXPECT_GT(next, now_);
    }
  }

  uint64_t now_;
  std::vector<uint64_t> when_;
  std::set<std::pair<uint64_t, uint32_t>> order_;
  TimerWheel wheel_;
  std::vector<uint32_t> fired_;
};

void run_random_operations(uint64_t seed, uint32_t ids, int operations) {
  SCOPED_TRACE("EDGEWIRE_SEED=" + std::to_string(seed) + " ids=" + std::to_string(ids));
  constexpr int kWheels = 40;
  Chooser choose(seed + ids);
  for (int i = 0; i < kWheels; ++i) {
    CheckedWheel wheel(choose.start(), ids);
    for (int operation = 0; operation < operations / kWheels; ++operation) {
      const uint32_t id = static_cast<uint32_t>(choose.below(ids));
      switch (choose.below(8)) {
        case 0: wheel.disarm(id); break;
        case 1: wheel.advance(later(wheel.now(), choose.step())); break;
        case 2: wheel.advance(std::min(choose.next_border(wheel.now()), later(wheel.now(), 1 << 16))); break;
        default: wheel.arm(id, choose.time(wheel.now())); break;
      }
      if (testing::Test::HasFailure()) return;
    }
    wheel.check_all();
    wheel.advance(kNever - 1);
    EXPECT_EQ(wheel.earliest(), kNever);
  }
}

TEST(TimerWheel, FiresEveryEntryInTheFirstAdvanceThatReachesIt) {
  run_random_operations(seed(), 3, 200'000);
  run_random_operations(seed(), 50, 200'000);
  run_random_operations(seed(), 5'000, 400'000);
}

// A caller that sleeps until next_ms() and advances to just that time: each entry fires at its time to the
// millisecond, after one step down per level at most (and one for each round of the top level it lies ahead).
TEST(TimerWheel, StepsOfNextMsReachEachEntryExactlyInFewSteps) {
  SCOPED_TRACE("EDGEWIRE_SEED=" + std::to_string(seed()));
  Chooser choose(seed());
  for (int round = 0; round < 200 && !HasFailure(); ++round) {
    CheckedWheel wheel(choose.start(), 100);
    for (uint32_t id = 0; id < wheel.count(); ++id) {
      wheel.arm(id, std::min(choose.time(wheel.now()), later(wheel.now(), 1000 * kRoundMs)));
    }
    wheel.advance(wheel.now());
    while (wheel.earliest() != kNever && !HasFailure()) {
      const uint64_t earliest = wheel.earliest();
      const uint64_t rounds_ahead = (earliest >> kRoundLog2) - (wheel.now() >> kRoundLog2);
      uint64_t steps = 0;
      do {
        steps += 1;
        ASSERT_LE(steps, kLevels + rounds_ahead) << "to " << earliest;
      } while (wheel.advance(wheel.next_ms()) == 0);
      EXPECT_EQ(wheel.now(), earliest);
    }
  }
}

TEST(TimerWheel, FiresToTheMillisecondWhenAdvancedByOneAcrossEveryBorder) {
  for (const uint32_t log2 : kBorderLog2) {
    const uint64_t border = uint64_t{4} << log2;
    for (uint64_t armed_at = border - 3; armed_at <= border; ++armed_at) {
      CheckedWheel wheel(armed_at, 10);
      for (uint32_t id = 0; id < 10; ++id) wheel.arm(id, armed_at + id);
      for (uint64_t now = armed_at; now < armed_at + 10; ++now) EXPECT_EQ(wheel.advance(now), 1u) << now;
    }
  }
}

TEST(TimerWheel, AnEntryArmedFarAheadFiresAtItsTimeAndNotBefore) {
  for (const uint32_t log2 : {8u, 14u, 20u, 26u, 32u, 33u, 40u, 63u}) {
    for (const uint64_t when : {(uint64_t{1} << log2) - 1, uint64_t{1} << log2, (uint64_t{1} << log2) + 1}) {
      CheckedWheel wheel(0, 1);
      wheel.arm(0, when);
      EXPECT_EQ(wheel.advance(when - 1), 0u);
      EXPECT_EQ(wheel.advance(when), 1u);
    }
  }
}

TEST(TimerWheel, ATimeThatIsNotAfterTheWheelsOwnFiresInTheNextAdvance) {
  CheckedWheel wheel(1000, 3);
  wheel.arm(0, 0);
  wheel.arm(1, 999);
  wheel.arm(2, 1000);
  EXPECT_EQ(wheel.next_ms(), 1000u);
  EXPECT_EQ(wheel.advance(1000), 3u);
}

TEST(TimerWheel, AnOverdueEntryThatIsMovedAheadDoesNotFire) {
  CheckedWheel wheel(1000, 1);
  wheel.arm(0, 500);
  wheel.arm(0, 1001);
  EXPECT_EQ(wheel.advance(1000), 0u);
  EXPECT_EQ(wheel.advance(1001), 1u);
}

TEST(TimerWheel, AdvancingBackwardsHasNoEffect) {
  TimerWheel wheel(1000);
  wheel.reserve(2);
  wheel.arm(0, 900);
  wheel.arm(1, 1001);
  std::vector<uint32_t> fired;
  wheel.advance(999, fired);
  EXPECT_TRUE(fired.empty());
  wheel.advance(1000, fired);
  EXPECT_EQ(fired, std::vector<uint32_t>{0});
  wheel.advance(0, fired);
  wheel.advance(1001, fired);
  EXPECT_EQ(fired, (std::vector<uint32_t>{0, 1}));
}

TEST(TimerWheel, AdvanceAppendsToWhatTheCallerHolds) {
  TimerWheel wheel(0);
  wheel.reserve(1);
  wheel.arm(0, 5);
  std::vector<uint32_t> fired = {77};
  wheel.advance(5, fired);
  EXPECT_EQ(fired, (std::vector<uint32_t>{77, 0}));
}

TEST(TimerWheel, AnyEntryOfASlotCanBeTakenOut) {
  for (uint32_t out = 0; out < 3; ++out) {
    CheckedWheel wheel(0, 3);
    for (uint32_t id = 0; id < 3; ++id) wheel.arm(id, 100);
    wheel.disarm(out);
    EXPECT_EQ(wheel.advance(100), 2u);
  }
}

TEST(TimerWheel, ArmingForNeverDisarms) {
  TimerWheel wheel(0);
  wheel.reserve(1);
  wheel.arm(0, 50);
  wheel.arm(0, kNever);
  EXPECT_FALSE(wheel.armed(0));
  EXPECT_EQ(wheel.size(), 0u);
  EXPECT_EQ(wheel.next_ms(), kNever);
}

TEST(TimerWheel, GrowingKeepsWhatIsArmed) {
  CheckedWheel wheel(0, 2);
  wheel.arm(0, 10);
  wheel.arm(1, 1'000'000);
  wheel.reserve(50'000);
  wheel.arm(49'999, 20);
  wheel.reserve(1);  // fewer than there are: no effect
  EXPECT_EQ(wheel.advance(10), 1u);
  EXPECT_EQ(wheel.advance(20), 1u);
  EXPECT_EQ(wheel.advance(1'000'000), 1u);
}

// A walk over ticks would take years here.
TEST(TimerWheel, AdvanceOverALongIdleTimeIsCheap) {
  CheckedWheel wheel(0, 2);
  constexpr uint64_t kYearMs = 365 * kDayMs;
  for (uint64_t year = 1; year <= 10'000; ++year) {
    wheel.arm(0, year * 10 * kYearMs);
    wheel.arm(1, kNever - 1);
    EXPECT_EQ(wheel.advance(year * 10 * kYearMs), 1u);
  }
  EXPECT_EQ(wheel.advance(kNever - 2), 0u);
  EXPECT_EQ(wheel.advance(kNever - 1), 1u);
}

TEST(TimerWheelDeathTest, ArmingAnIdThatWasNotReservedEndsTheProcess) {
  TimerWheel wheel(0);
  wheel.reserve(4);
  wheel.disarm(UINT32_MAX);  // never armed: nothing to do
  EXPECT_DEATH(wheel.arm(4, 10), "internal check failed");
}

}  // namespace
}  // namespace edgewire::test
