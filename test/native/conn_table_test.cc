// The connection table: an index is one connection's from allocate() to free(), and no token of an earlier life finds
// a later one.
#include "core/conn_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace edgewire::test {

uint64_t seed();  // main.cc

namespace {

// Every growth moves the rows, so that AddressSanitizer sees a pointer kept across one.
class HeapRows : public RowSource {
 public:
  bool grow_rows(uint32_t rows, double** doubles, int32_t** words) noexcept override {
    if (refuse) return false;
    auto more_doubles = std::make_unique<double[]>(size_t{rows} * abi::kRowWords);
    auto more_words = std::make_unique<int32_t[]>(size_t{rows} * abi::kInterestWords);
    std::copy_n(doubles_.get(), size_t{rows_} * abi::kRowWords, more_doubles.get());
    std::copy_n(words_.get(), size_t{rows_} * abi::kInterestWords, more_words.get());
    doubles_ = std::move(more_doubles);
    words_ = std::move(more_words);
    rows_ = rows;
    *doubles = doubles_.get();
    *words = words_.get();
    growths += 1;
    return true;
  }

  bool refuse = false;
  int growths = 0;

 private:
  std::unique_ptr<double[]> doubles_;
  std::unique_ptr<int32_t[]> words_;
  uint32_t rows_ = 0;
};

uint32_t open_one(ConnTable& table) {
  const uint32_t index = table.allocate();
  if (index != kNoIndex) table.at(index).state = ConnState::kOpen;
  return index;
}

TEST(ConnTable, HandsOutClearedRowsAndConnections) {
  HeapRows rows;
  ConnTable table(rows);
  for (int life = 0; life < 3; ++life) {
    const uint32_t index = open_one(table);
    double* const doubles = table.row(index);
    EXPECT_TRUE(std::isinf(doubles[abi::kRowReadDeadline]));
    EXPECT_TRUE(std::isinf(doubles[abi::kRowWriteDeadline]));
    EXPECT_TRUE(std::isinf(doubles[abi::kRowArmedAt]));
    EXPECT_EQ(doubles[abi::kRowIdleMs], 0);
    EXPECT_EQ(doubles[abi::kRowSentBytes], 0);
    EXPECT_EQ(doubles[abi::kRowReceivedBytes], 0);
    EXPECT_EQ(table.interest(index)[abi::kInterestRead], 0);
    EXPECT_EQ(table.interest(index)[abi::kInterestFlags], 0);
    Conn& conn = table.at(index);
    EXPECT_EQ(conn.fd, -1);
    EXPECT_EQ(conn.owes, 0);
    EXPECT_EQ(conn.lists, 0);
    EXPECT_EQ(conn.out_first, kNoIndex);
    EXPECT_FALSE(conn.announced);
    std::fill_n(doubles, abi::kRowWords, 7.0);
    std::fill_n(table.interest(index), abi::kInterestWords, 7);
    conn.fd = 5;
    conn.owes = conn.lists = 255;
    conn.out_first = 3;
    conn.announced = true;
    table.free(index);
  }
}

TEST(ConnTable, ReusesTheIndexThatCameBackLast) {
  HeapRows rows;
  ConnTable table(rows);
  std::vector<uint32_t> indices;
  for (int i = 0; i < 10; ++i) indices.push_back(open_one(table));
  EXPECT_EQ(indices, (std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  for (const uint32_t index : {3u, 8u, 5u}) table.free(index);
  EXPECT_EQ(table.in_use(), 7u);
  EXPECT_EQ(open_one(table), 5u);
  EXPECT_EQ(open_one(table), 8u);
  EXPECT_EQ(open_one(table), 3u);
  EXPECT_EQ(open_one(table), 10u);
}

TEST(ConnTable, ATokenOfAnEarlierLifeNeverFindsTheNewOne) {
  SCOPED_TRACE("EDGEWIRE_SEED=" + std::to_string(seed()));
  HeapRows rows;
  ConnTable table(rows);
  std::mt19937_64 random(seed());
  std::map<uint32_t, uint64_t> living;  // index -> token
  std::vector<uint64_t> dead;
  for (int operation = 0; operation < 30'000 && !HasFailure(); ++operation) {
    if (living.empty() || random() % 9 < (living.size() < 1500 ? 5u : 4u)) {
      const uint32_t index = open_one(table);
      ASSERT_TRUE(living.emplace(index, table.token(index)).second) << index << " was handed out twice";
    } else {
      auto place = living.lower_bound(static_cast<uint32_t>(random() % table.rows()));
      if (place == living.end()) place = living.begin();
      EXPECT_EQ(table.find_token(place->second), &table.at(place->first));
      dead.push_back(place->second);
      table.free(place->first);
      living.erase(place);
    }
    if (!dead.empty()) {
      EXPECT_EQ(table.find_token(dead[random() % dead.size()]), nullptr);
    }
    EXPECT_EQ(table.in_use(), living.size());
  }
  for (const uint64_t token : dead) EXPECT_EQ(table.find_token(token), nullptr);
  for (const auto& [index, token] : living) EXPECT_EQ(table.find_token(token), &table.at(index));
}

TEST(ConnTable, GrowthKeepsConnectionsAndRows) {
  HeapRows rows;
  ConnTable table(rows);
  constexpr uint32_t kCount = ConnTable::kRowsAtStart * 4 + 1;
  std::vector<uint64_t> tokens;
  for (uint32_t i = 0; i < kCount; ++i) {
    const uint32_t index = open_one(table);
    ASSERT_EQ(index, i);
    table.at(index).fd = static_cast<int>(i);
    table.row(index)[abi::kRowReadDeadline] = i * 0.5;
    table.row(index)[abi::kRowReceivedBytes] = i;
    table.interest(index)[abi::kInterestRead] = -static_cast<int32_t>(i);
    table.interest(index)[abi::kInterestFlags] = static_cast<int32_t>(i);
    tokens.push_back(table.token(index));
  }
  EXPECT_EQ(rows.growths, 4);
  EXPECT_EQ(table.rows(), kCount);
  EXPECT_EQ(table.capacity(), ConnTable::kRowsAtStart * 8);
  for (uint32_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(table.find_token(tokens[i]), &table.at(i));
    EXPECT_EQ(table.at(i).fd, static_cast<int>(i));
    EXPECT_EQ(table.row(i)[abi::kRowReadDeadline], i * 0.5);
    EXPECT_EQ(table.row(i)[abi::kRowReceivedBytes], i);
    EXPECT_EQ(table.interest(i)[abi::kInterestRead], -static_cast<int32_t>(i));
    EXPECT_EQ(table.interest(i)[abi::kInterestFlags], static_cast<int32_t>(i));
  }
}

TEST(ConnTable, FindsOnlyWhatIsInUseForAnyNumber) {
  HeapRows rows;
  ConnTable table(rows);
  EXPECT_EQ(table.find(0), nullptr) << "an empty table";
  const uint32_t index = open_one(table);
  const uint32_t other = open_one(table);
  table.free(other);
  EXPECT_EQ(table.find(static_cast<int32_t>(index)), &table.at(index));
  EXPECT_EQ(table.find(static_cast<int32_t>(other)), nullptr);
  const int32_t end = static_cast<int32_t>(table.rows());
  for (const int32_t outside : {-1, -2, INT32_MIN, INT32_MAX, end - 1, end, end + 1, 1 << 24}) {
    EXPECT_EQ(table.find(outside), nullptr) << outside;
    EXPECT_EQ(table.find_token(static_cast<uint32_t>(outside)), nullptr) << outside;
  }
  std::mt19937_64 random(seed());
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t number = random();
    const int32_t asked = static_cast<int32_t>(number);
    EXPECT_EQ(table.find(asked) != nullptr, asked == static_cast<int32_t>(index));
    EXPECT_EQ(table.find_token(number) != nullptr, number == table.token(index));
  }
  EXPECT_EQ(table.find_token(UINT64_MAX), nullptr);
}

TEST(ConnTable, WithoutMemoryItRefusesAndGoesOnWithWhatItHas) {
  HeapRows rows;
  ConnTable table(rows);
  rows.refuse = true;
  EXPECT_EQ(table.allocate(), kNoIndex);
  EXPECT_EQ(table.rows(), 0u);
  rows.refuse = false;
  for (uint32_t i = 0; i < ConnTable::kRowsAtStart; ++i) ASSERT_NE(open_one(table), kNoIndex);
  rows.refuse = true;
  EXPECT_EQ(table.allocate(), kNoIndex);
  EXPECT_EQ(table.in_use(), ConnTable::kRowsAtStart);
  table.free(17);
  EXPECT_EQ(open_one(table), 17u) << "needs no memory";
  rows.refuse = false;
  EXPECT_EQ(open_one(table), ConnTable::kRowsAtStart);
}

TEST(ConnTableDeathTest, FreeingAnIndexOutsideTheTableEndsTheProcess) {
  HeapRows rows;
  ConnTable table(rows);
  open_one(table);
  EXPECT_DEATH(table.free(table.rows()), "internal check failed");
  EXPECT_DEATH(table.free(kNoIndex), "internal check failed");
}

}  // namespace
}  // namespace edgewire::test
