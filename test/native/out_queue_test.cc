// Output queues against a queue of bytes per connection: what gather() shows is what was appended and not yet
// consumed, and every reference on a chunk or a pinned buffer comes back exactly once.
#include "core/out_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace edgewire::test {

uint64_t seed();  // main.cc

namespace {

class HeapSource : public SlabSource {
 public:
  uint8_t* acquire_slab(uint32_t index) noexcept override {
    auto& slab = slabs_[index];
    slab.reset(new uint8_t[kSlabBytes]);
    return slab.get();
  }
  void release_slab(uint32_t index) noexcept override { slabs_.erase(index); }

 private:
  std::map<uint32_t, std::unique_ptr<uint8_t[]>> slabs_;
};

class Pins : public PinSource {
 public:
  const uint8_t* pinned(uint32_t id, size_t* bytes) noexcept override {
    EXPECT_EQ(held.count(id), 1u) << "pin " << id << " was asked for after unpin()";
    *bytes = held[id].size();
    return held[id].empty() ? nullptr : held[id].data();
  }
  void unpin(uint32_t id) noexcept override { EXPECT_EQ(held.erase(id), 1u) << "pin " << id << " was let go twice"; }

  uint32_t pin(std::vector<uint8_t> bytes) {
    held[next_] = std::move(bytes);
    return next_++;
  }

  std::map<uint32_t, std::vector<uint8_t>> held;

 private:
  uint32_t next_ = 1;
};

std::vector<uint8_t> gathered(const OutQueues& queues, const Conn& conn, int pieces_max, size_t bytes_max) {
  std::vector<iovec> pieces(static_cast<size_t>(pieces_max));
  bool lost = false;
  const int count = queues.gather(conn, pieces.data(), pieces_max, bytes_max, &lost);
  EXPECT_FALSE(lost);
  EXPECT_LE(count, pieces_max);
  std::vector<uint8_t> bytes;
  for (int i = 0; i < count; ++i) {
    const auto* base = static_cast<const uint8_t*>(pieces[static_cast<size_t>(i)].iov_base);
    bytes.insert(bytes.end(), base, base + pieces[static_cast<size_t>(i)].iov_len);
  }
  EXPECT_LE(bytes.size(), bytes_max);
  return bytes;
}

// Some connections' queues and the model of each.
class CheckedQueues {
 public:
  static constexpr size_t kConns = 5;

  explicit CheckedQueues(uint64_t seed, uint64_t budget_bytes)
      : random_(seed), pool_(source_, budget_bytes), queues_(pool_, pins_) {}

  uint64_t below(uint64_t limit) { return random_() % limit; }
  size_t any() { return below(kConns); }

  void append_copy(size_t which) {
    const std::vector<uint8_t> bytes = random_bytes(1 + below(below(20) == 0 ? 200'000 : 3'000));
    const uint64_t reserve = below(4) * kChunkBytes;
    const uint64_t before = conns_[which].out_bytes;
    const bool taken = queues_.append_copy(conns_[which], bytes.data(), bytes.size(), reserve);
    const uint64_t added = conns_[which].out_bytes - before;
    ASSERT_LE(added, bytes.size());
    EXPECT_EQ(taken, added == bytes.size());
    if (!taken) {
      EXPECT_LT(pool_.available_bytes(), reserve + kChunkBytes) << "refused with chunks to spare";
    }
    models_[which].insert(models_[which].end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(added));
  }

  void append_span(size_t which) {
    const ChunkId chunk = pool_.acquire();
    if (chunk == kNoChunk) return;
    const uint32_t offset = static_cast<uint32_t>(below(kChunkBytes));
    const uint32_t count = 1 + static_cast<uint32_t>(below(kChunkBytes - offset));
    const std::vector<uint8_t> bytes = random_bytes(count);
    std::copy(bytes.begin(), bytes.end(), pool_.data(chunk) + offset);
    queues_.append_span(conns_[which], chunk, offset, count);
    pool_.release(chunk);
    models_[which].insert(models_[which].end(), bytes.begin(), bytes.end());
  }

  void append_pinned(size_t which) {
    const std::vector<uint8_t> bytes = random_bytes(1 + below(40'000));
    const uint32_t offset = static_cast<uint32_t>(below(bytes.size()));
    const uint32_t count = 1 + static_cast<uint32_t>(below(bytes.size() - offset));
    models_[which].insert(models_[which].end(), bytes.begin() + offset, bytes.begin() + offset + count);
    queues_.append_pinned(conns_[which], pins_.pin(bytes), offset, count);
  }

  void consume(size_t which) {
    const uint64_t queued = conns_[which].out_bytes;
    const size_t bytes = below(3) == 0 ? queued : below(queued + 1);
    queues_.consume(conns_[which], bytes);
    models_[which].erase(models_[which].begin(), models_[which].begin() + static_cast<ptrdiff_t>(bytes));
  }

  void drop(size_t which) {
    queues_.drop_all(conns_[which]);
    models_[which].clear();
  }

  void check(size_t which) {
    const std::deque<uint8_t>& model = models_[which];
    ASSERT_EQ(conns_[which].out_bytes, model.size());
    const int pieces = 1 + static_cast<int>(below(20));
    const size_t limit = 1 + below(below(2) == 0 ? 100 : 300'000);
    const std::vector<uint8_t> shown = gathered(queues_, conns_[which], pieces, limit);
    ASSERT_LE(shown.size(), model.size());
    EXPECT_TRUE(std::equal(shown.begin(), shown.end(), model.begin()));
    EXPECT_EQ(shown.empty(), model.empty());
    uint64_t sum = 0;
    for (const Conn& conn : conns_) sum += conn.out_bytes;
    EXPECT_EQ(queues_.queued_bytes(), sum);
  }

  void finish() {
    for (size_t which = 0; which < kConns; ++which) {
      std::vector<uint8_t> rest = gathered(queues_, conns_[which], 100'000, SIZE_MAX);
      EXPECT_TRUE(std::equal(rest.begin(), rest.end(), models_[which].begin(), models_[which].end()));
      below(2) == 0 ? drop(which) : queues_.consume(conns_[which], conns_[which].out_bytes);
      EXPECT_EQ(conns_[which].out_first, kNoIndex);
      EXPECT_EQ(conns_[which].out_last, kNoIndex);
    }
    queues_.release_cursor();
    EXPECT_EQ(queues_.queued_bytes(), 0u);
    EXPECT_EQ(pool_.in_use_bytes(), 0u);
    EXPECT_TRUE(pins_.held.empty());
  }

 private:
  std::vector<uint8_t> random_bytes(size_t count) {
    std::vector<uint8_t> bytes(count);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_());
    return bytes;
  }

  std::mt19937_64 random_;
  HeapSource source_;
  SlabPool pool_;
  Pins pins_;
  OutQueues queues_;
  std::array<Conn, kConns> conns_;
  std::array<std::deque<uint8_t>, kConns> models_;
};

TEST(OutQueues, KeepEveryByteInOrderAndEveryReferenceBalanced) {
  SCOPED_TRACE("EDGEWIRE_SEED=" + std::to_string(seed()));
  for (uint64_t run = 0; run < 6; ++run) {
    CheckedQueues queues(seed() + run, (1 + run) * kSlabBytes);
    for (int operation = 0; operation < 500 && !HasFailure(); ++operation) {
      const size_t which = queues.any();
      switch (queues.below(8)) {
        case 0: queues.append_span(which); break;
        case 1: queues.append_pinned(which); break;
        case 2:
        case 3: queues.consume(which); break;
        case 4: queues.below(8) == 0 ? queues.drop(which) : queues.consume(which); break;
        default: queues.append_copy(which); break;
      }
      queues.check(which);
    }
    queues.finish();
  }
}

class OutQueuesAlone : public testing::Test {
 protected:
  bool copy(Conn& conn, size_t bytes, uint64_t reserve = 0) {
    const std::vector<uint8_t> data(bytes, 'x');
    return queues_.append_copy(conn, data.data(), data.size(), reserve);
  }

  HeapSource source_;
  SlabPool pool_{source_, kSlabBytes};
  Pins pins_;
  OutQueues queues_{pool_, pins_};
  Conn conn_;
};

TEST_F(OutQueuesAlone, ManySmallCopiesShareAChunk) {
  std::vector<Conn> conns(100);
  for (int round = 0; round < 3; ++round) {
    for (Conn& conn : conns) ASSERT_TRUE(copy(conn, 64));
  }
  EXPECT_EQ(pool_.in_use_bytes(), kChunkBytes);
  for (Conn& conn : conns) queues_.drop_all(conn);
  queues_.release_cursor();
  EXPECT_EQ(pool_.in_use_bytes(), 0u);
}

TEST_F(OutQueuesAlone, OneConnectionsCopiesInARowAreOnePiece) {
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(copy(conn_, 10));
  std::array<iovec, 4> pieces;
  bool lost = false;
  EXPECT_EQ(queues_.gather(conn_, pieces.data(), 4, SIZE_MAX, &lost), 1);
  EXPECT_EQ(pieces[0].iov_len, 500u);
  queues_.drop_all(conn_);
  queues_.release_cursor();
}

// The cursor's bytes went out while it was still being filled: what is appended next must not land in them again.
TEST_F(OutQueuesAlone, TheCursorOutlivesTheSegmentsThatUsedIt) {
  Conn other;
  ASSERT_TRUE(copy(conn_, 1'000));
  queues_.consume(conn_, 1'000);
  ASSERT_TRUE(copy(other, 1'000));
  ASSERT_TRUE(copy(conn_, 1'000));
  EXPECT_EQ(gathered(queues_, other, 1, SIZE_MAX).size(), 1'000u);
  queues_.drop_all(conn_);
  queues_.drop_all(other);
  queues_.release_cursor();
  EXPECT_EQ(pool_.in_use_bytes(), 0u);
}

TEST_F(OutQueuesAlone, AtTheBudgetCopyingRefusesAndNothingLeaks) {
  EXPECT_FALSE(copy(conn_, 2 * kSlabBytes));
  EXPECT_EQ(pool_.available_bytes(), 0u);
  queues_.drop_all(conn_);
  EXPECT_EQ(pool_.in_use_bytes(), 0u);

  constexpr uint64_t kReserve = 5 * kChunkBytes;
  EXPECT_FALSE(copy(conn_, 2 * kSlabBytes, kReserve));
  EXPECT_EQ(pool_.available_bytes(), kReserve) << "the reserve is not for copies";
  EXPECT_EQ(conn_.out_bytes, kSlabBytes - kReserve);
  queues_.drop_all(conn_);
  queues_.release_cursor();
  EXPECT_EQ(pool_.in_use_bytes(), 0u);
}

TEST_F(OutQueuesAlone, APinThatVanishedOrShrankIsReportedWhenItsTurnComes) {
  for (const size_t left : {size_t{0}, size_t{999}}) {
    ASSERT_TRUE(copy(conn_, 100));
    const uint32_t id = pins_.pin(std::vector<uint8_t>(1'000, 'p'));
    queues_.append_pinned(conn_, id, 0, 1'000);
    ASSERT_TRUE(copy(conn_, 100));
    pins_.held[id].resize(left);

    std::array<iovec, 8> pieces;
    bool lost = false;
    ASSERT_EQ(queues_.gather(conn_, pieces.data(), 8, SIZE_MAX, &lost), 1) << "what lies before it still goes out";
    EXPECT_FALSE(lost);
    queues_.consume(conn_, pieces[0].iov_len);
    EXPECT_EQ(queues_.gather(conn_, pieces.data(), 8, SIZE_MAX, &lost), 0);
    EXPECT_TRUE(lost);
    queues_.drop_all(conn_);
    EXPECT_TRUE(pins_.held.empty());
  }
  queues_.release_cursor();
  EXPECT_EQ(pool_.in_use_bytes(), 0u);
}

TEST_F(OutQueuesAlone, SegmentsAreUsedAgain) {
  for (int round = 0; round < 1'000; ++round) {
    for (int i = 0; i < 10; ++i) queues_.append_pinned(conn_, pins_.pin({1, 2, 3}), 1, 2);
    queues_.consume(conn_, 20);
  }
  EXPECT_LE(queues_.capacity(), 1024u);
  EXPECT_TRUE(pins_.held.empty());
}

using OutQueuesDeathTest = OutQueuesAlone;

TEST_F(OutQueuesDeathTest, ConsumingMoreThanIsQueuedEndsTheProcess) {
  ASSERT_TRUE(copy(conn_, 10));
  EXPECT_DEATH(queues_.consume(conn_, 11), "internal check failed");
  queues_.drop_all(conn_);
}

}  // namespace
}  // namespace edgewire::test
