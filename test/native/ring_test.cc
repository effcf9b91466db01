// The record ring against a queue: nothing is lost, doubled or moved, wherever in the 32-bit space the positions are.
#include "core/ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <vector>

namespace edgewire::test {

uint64_t seed();  // main.cc

namespace {

Record numbered(int32_t number) { return Record{number, ~number, number * 3, number ^ 0x5555}; }

bool same(const Record& left, const Record& right) {
  return left.head == right.head && left.subject == right.subject && left.a == right.a && left.b == right.b;
}

// A ring with memory of its own, both positions at `start`.
struct OwnRing {
  OwnRing(uint32_t capacity, uint32_t start)
      : records(capacity),
        head(static_cast<int32_t>(start)),
        tail(static_cast<int32_t>(start)),
        ring(records.data(), capacity, &head, &tail) {}
  OwnRing(const OwnRing&) = delete;
  OwnRing& operator=(const OwnRing&) = delete;

  std::vector<Record> records;
  int32_t head;
  int32_t tail;
  RecordRing ring;
};

// Before each border that an int32 or a uint32 crosses, and at it.
constexpr std::array<uint32_t, 7> kStarts = {0, 1, 0x7fffffffu, 0x80000000u, 0x7ffffffcu, 0xffffffffu, 0xfffffffcu};

TEST(RecordRing, FillsToItsCapacityAndEmptiesInOrderAcrossEveryBorder) {
  for (const uint32_t start : kStarts) {
    for (const uint32_t capacity : {1u, 2u, 8u, 64u}) {
      SCOPED_TRACE(testing::Message() << "start " << start << " capacity " << capacity);
      OwnRing own(capacity, start);
      EXPECT_TRUE(own.ring.empty());
      for (uint32_t i = 0; i < capacity; ++i) {
        EXPECT_EQ(own.ring.space(), capacity - i);
        EXPECT_TRUE(own.ring.push(numbered(static_cast<int32_t>(i))));
        EXPECT_EQ(own.ring.size(), i + 1);
        EXPECT_FALSE(own.ring.empty());
      }
      EXPECT_EQ(own.ring.space(), 0u);
      EXPECT_FALSE(own.ring.push(numbered(-1))) << "full";
      Record record{};
      for (uint32_t i = 0; i < capacity; ++i) {
        ASSERT_TRUE(own.ring.pop(&record));
        EXPECT_TRUE(same(record, numbered(static_cast<int32_t>(i))));
      }
      EXPECT_FALSE(own.ring.pop(&record));
      EXPECT_TRUE(own.ring.empty());
    }
  }
}

TEST(RecordRing, BehavesAsAQueueUnderRandomOperations) {
  SCOPED_TRACE("EDGEWIRE_SEED=" + std::to_string(seed()));
  std::mt19937_64 random(seed());
  for (const uint32_t start : kStarts) {
    const uint32_t capacity = 1u << (random() % 7);
    OwnRing own(capacity, start);
    std::deque<Record> model;
    int32_t next = 0;
    for (int operation = 0; operation < 20'000 && !HasFailure(); ++operation) {
      const uint32_t count = static_cast<uint32_t>(random() % (capacity + 1));
      switch (random() % 3) {
        case 0:
          for (uint32_t i = 0; i < count; ++i) {
            const Record record = numbered(next++);
            const bool fits = model.size() < capacity;
            EXPECT_EQ(own.ring.push(record), fits);
            if (fits) model.push_back(record);
          }
          break;
        case 1:
          for (uint32_t i = 0; i < count; ++i) {
            Record record{};
            ASSERT_EQ(own.ring.pop(&record), !model.empty());
            if (model.empty()) break;
            EXPECT_TRUE(same(record, model.front()));
            model.pop_front();
          }
          break;
        default: {
          const uint32_t taken = std::min<uint32_t>(count, static_cast<uint32_t>(model.size()));
          for (uint32_t i = 0; i < taken; ++i) EXPECT_TRUE(same(own.ring.peek(i), model[i]));
          own.ring.drop(taken);
          model.erase(model.begin(), model.begin() + taken);
        }
      }
      EXPECT_EQ(own.ring.size(), model.size());
      EXPECT_EQ(own.ring.space(), capacity - model.size());
      EXPECT_EQ(own.ring.empty(), model.empty());
    }
  }
}

// The positions are words that JavaScript can write: whatever stands there, no access leaves the ring's memory.
TEST(RecordRing, StaysInItsMemoryWhateverThePositionsAre) {
  std::mt19937_64 random(seed());
  OwnRing own(16, 0);
  for (int i = 0; i < 1'000; ++i) {
    own.head = static_cast<int32_t>(random());
    own.tail = static_cast<int32_t>(random());
    EXPECT_LE(own.ring.space(), 16u);
    Record record{};
    own.ring.push(numbered(i));
    own.ring.pop(&record);
    own.ring.peek(static_cast<uint32_t>(random()));
    own.ring.drop(own.ring.size());
    EXPECT_TRUE(own.ring.empty());
  }
}

TEST(RecordRing, ReadsTheTypeFromTheLowByteOfTheHead) {
  const Record record{abi::kCompletionTimeout | abi::kDeadlineIdle << 8, 0, 0, 0};
  EXPECT_EQ(record.type(), abi::kCompletionTimeout);
  EXPECT_EQ(record.head >> 8, abi::kDeadlineIdle);
}

TEST(RecordRingDeathTest, ACapacityThatIsNoPowerOfTwoEndsTheProcess) {
  EXPECT_DEATH(OwnRing(12, 0), "internal check failed");
}

}  // namespace
}  // namespace edgewire::test
