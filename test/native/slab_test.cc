// The slab pool against a model that knows the free list's order: each chunk is in exactly one place, its memory is
// its holder's alone, the sums are right, and the budget holds.
#include "core/slab.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace edgewire::test {

uint64_t seed();  // main.cc

namespace {

// Slabs from the C heap, so that AddressSanitizer sees a touch of one that was given back.
class HeapSource : public SlabSource {
 public:
  uint8_t* acquire_slab(uint32_t index) noexcept override {
    asked += 1;
    if (empty) return nullptr;
    EXPECT_EQ(slabs.count(index), 0u) << "slab " << index << " is held already";
    auto& slab = slabs[index];
    slab.reset(new uint8_t[kSlabBytes]);
    return slab.get();
  }
  void release_slab(uint32_t index) noexcept override {
    EXPECT_EQ(slabs.erase(index), 1u) << "slab " << index << " is not held";
  }

  std::map<uint32_t, std::unique_ptr<uint8_t[]>> slabs;
  bool empty = false;
  int asked = 0;
};

// Room for 4 GiB of slabs without the memory: nothing may touch them.
class AddressSource : public SlabSource {
 public:
  uint8_t* acquire_slab(uint32_t index) noexcept override {
    return reinterpret_cast<uint8_t*>((uintptr_t{index} + 1) * kSlabBytes);
  }
  void release_slab(uint32_t) noexcept override {}
};

std::vector<ChunkId> acquire_slabs(SlabPool& pool, uint32_t slabs) {
  std::vector<ChunkId> chunks(slabs * kChunksPerSlab);
  for (ChunkId& chunk : chunks) chunk = pool.acquire();
  return chunks;
}

void release_all(SlabPool& pool, const std::vector<ChunkId>& chunks) {
  for (const ChunkId chunk : chunks) pool.release(chunk);
}

bool is_filled_with(const uint8_t* bytes, uint8_t value) {
  return bytes[0] == value && std::memcmp(bytes, bytes + 1, kChunkBytes - 1) == 0;
}

// A pool and a naive model side by side.
class CheckedPool {
 public:
  CheckedPool(uint64_t seed, uint32_t budget_slabs)
      : random_(seed), budget_(budget_slabs), pool_(source_, uint64_t{budget_slabs} * kSlabBytes) {}

  uint64_t below(uint64_t limit) { return random_() % limit; }

  void acquire() {
    const bool has_budget = held_.size() < uint64_t{budget_} * kChunksPerSlab;
    if (has_budget && free_.empty() && !source_.empty) model_grow();
    const ChunkId expected = has_budget && !free_.empty() ? free_.back() : kNoChunk;
    const uint64_t mapped_before = pool_.mapped_bytes();
    const ChunkId chunk = pool_.acquire();
    ASSERT_EQ(chunk, expected);
    const uint64_t grown = pool_.mapped_bytes() - mapped_before;
    EXPECT_TRUE(grown == 0 || pool_.mapped_bytes() <= pool_.budget_bytes());
    if (chunk == kNoChunk) return;
    EXPECT_LE(pool_.in_use_bytes(), pool_.budget_bytes());
    free_.pop_back();
    idle_.erase(chunk / kChunksPerSlab);
    const uint8_t pattern = static_cast<uint8_t>(random_());
    std::memset(pool_.data(chunk), pattern, kChunkBytes);
    held_[chunk] = {1, pattern};
    peak_ = std::max<uint64_t>(peak_, held_.size());
  }

  void retain() {
    if (held_.empty()) return;
    auto& [chunk, holding] = *random_held();
    pool_.retain(chunk);
    holding.references += 1;
  }

  void release() {
    if (held_.empty()) return;
    const auto place = random_held();
    const ChunkId chunk = place->first;
    ASSERT_TRUE(is_filled_with(pool_.data(chunk), place->second.pattern)) << "chunk " << chunk << " was overwritten";
    pool_.release(chunk);
    if (--place->second.references > 0) return;
    held_.erase(place);
    free_.push_back(chunk);
  }

  void trim() {
    std::vector<uint32_t> old_idle;
    for (const auto& [index, memory] : source_.slabs) {
      if (held_in(index) > 0) continue;
      if (!idle_.insert(index).second) old_idle.push_back(index);
    }
    const size_t expected = old_idle.empty() ? 0 : old_idle.size() - 1;
    ASSERT_EQ(pool_.trim(), expected);
    for (size_t i = 1; i < old_idle.size(); ++i) {  // all but the lowest
      idle_.erase(old_idle[i]);
      std::erase_if(free_, [&](ChunkId chunk) { return chunk / kChunksPerSlab == old_idle[i]; });
      EXPECT_EQ(source_.slabs.count(old_idle[i]), 0u);
    }
  }

  void set_budget(uint32_t slabs) {
    budget_ = slabs;
    pool_.set_budget_bytes(uint64_t{slabs} * kSlabBytes);
  }

  void set_source_empty(bool empty) { source_.empty = empty; }

  void check_sums() {
    const uint64_t in_use = held_.size() * uint64_t{kChunkBytes};
    const uint64_t budget = uint64_t{budget_} * kSlabBytes;
    EXPECT_EQ(pool_.in_use_bytes(), in_use);
    EXPECT_EQ(pool_.in_use_peak_bytes(), peak_ * kChunkBytes);
    EXPECT_EQ(pool_.mapped_bytes(), source_.slabs.size() * uint64_t{kSlabBytes});
    EXPECT_EQ(pool_.mapped_bytes(), (held_.size() + free_.size()) * kChunkBytes);
    EXPECT_EQ(pool_.budget_bytes(), budget);
    EXPECT_EQ(pool_.available_bytes(), budget > in_use ? budget - in_use : 0);
  }

  void check_every_chunk() {
    for (ChunkId chunk = 0; chunk < 40 * kChunksPerSlab; ++chunk) {
      const auto place = held_.find(chunk);
      const uint32_t references = place == held_.end() ? 0 : place->second.references;
      ASSERT_EQ(pool_.references(chunk), references) << "chunk " << chunk;
      ASSERT_EQ(pool_.in_use(chunk), references > 0) << "chunk " << chunk;
      if (references == 0) continue;
      ASSERT_TRUE(is_filled_with(pool_.data(chunk), place->second.pattern)) << "chunk " << chunk << " was overwritten";
      const uint8_t* const slab = source_.slabs.at(chunk / kChunksPerSlab).get();
      ASSERT_GE(pool_.data(chunk), slab);
      ASSERT_LE(pool_.data(chunk) + kChunkBytes, slab + kSlabBytes);
    }
  }

 private:
  struct Holding {
    uint32_t references;
    uint8_t pattern;
  };

  std::map<ChunkId, Holding>::iterator random_held() {
    const auto place = held_.lower_bound(static_cast<ChunkId>(below(held_.rbegin()->first + 1)));
    return place == held_.end() ? held_.begin() : place;
  }

  size_t held_in(uint32_t slab) const {
    return static_cast<size_t>(
        std::distance(held_.lower_bound(slab * kChunksPerSlab), held_.lower_bound((slab + 1) * kChunksPerSlab)));
  }

  void model_grow() {
    uint32_t index = 0;
    while (source_.slabs.count(index) > 0) index += 1;
    for (uint32_t i = kChunksPerSlab; i-- > 0;) free_.push_back(index * kChunksPerSlab + i);
  }

  std::mt19937_64 random_;
  uint32_t budget_;
  uint64_t peak_ = 0;
  std::map<ChunkId, Holding> held_;
  std::vector<ChunkId> free_;  // the next one to hand out is the last
  std::set<uint32_t> idle_;    // slabs free ever since the last trim
  HeapSource source_;          // outlives the pool
  SlabPool pool_;
};

// Phases in which acquiring or releasing prevails: the pool fills to its budget, and drains until slabs go back.
void run_random_operations(uint64_t seed, uint32_t budget_slabs, int operations) {
  SCOPED_TRACE("EDGEWIRE_SEED=" + std::to_string(seed) + " budget_slabs=" + std::to_string(budget_slabs));
  CheckedPool pool(seed + budget_slabs, budget_slabs);
  uint64_t acquire_share = 60;
  for (int i = 0; i < operations && !testing::Test::HasFailure(); ++i) {
    if (pool.below(500) == 0) acquire_share = 10 + pool.below(80);
    if (pool.below(200) == 0) pool.set_source_empty(pool.below(3) == 0);
    if (pool.below(1000) == 0) pool.set_budget(static_cast<uint32_t>(1 + pool.below(budget_slabs * 2)));
    const uint64_t dice = pool.below(100);
    if (dice < 1) {
      pool.trim();
    } else if (dice < 8) {
      pool.retain();
    } else if (pool.below(100) < acquire_share) {
      pool.acquire();
    } else {
      pool.release();
    }
    pool.check_sums();
    if (i % 500 == 0) pool.check_every_chunk();
  }
  pool.check_every_chunk();
}

TEST(SlabPool, KeepsEveryChunkInOnePlaceWithinASmallBudget) { run_random_operations(seed(), 1, 100'000); }

TEST(SlabPool, KeepsEveryChunkInOnePlaceWithinALargeBudget) {
  run_random_operations(seed(), 5, 150'000);
  run_random_operations(seed(), 20, 150'000);
}

TEST(SlabPool, HandsOutTheChunkThatCameBackLast) {
  HeapSource source;
  SlabPool pool(source, 4 * kSlabBytes);
  const ChunkId first = pool.acquire();
  const ChunkId second = pool.acquire();
  const ChunkId third = pool.acquire();
  pool.release(second);
  pool.release(first);
  EXPECT_EQ(pool.acquire(), first);
  EXPECT_EQ(pool.acquire(), second);
  EXPECT_NE(pool.acquire(), third);
}

TEST(SlabPool, AChunkStaysInUseUntilItsLastReference) {
  HeapSource source;
  SlabPool pool(source, kSlabBytes);
  const ChunkId chunk = pool.acquire();
  pool.retain(chunk);
  pool.retain(chunk);
  EXPECT_EQ(pool.references(chunk), 3u);
  pool.release(chunk);
  pool.release(chunk);
  EXPECT_TRUE(pool.in_use(chunk));
  EXPECT_NE(pool.acquire(), chunk);
  pool.release(chunk);
  EXPECT_FALSE(pool.in_use(chunk));
  EXPECT_EQ(pool.acquire(), chunk);
}

TEST(SlabPool, AtTheBudgetThereIsNoChunkUntilOneComesBack) {
  HeapSource source;
  SlabPool pool(source, 2 * kSlabBytes);
  const std::vector<ChunkId> chunks = acquire_slabs(pool, 2);
  EXPECT_EQ(std::count(chunks.begin(), chunks.end(), kNoChunk), 0);
  EXPECT_EQ(std::set<ChunkId>(chunks.begin(), chunks.end()).size(), chunks.size());
  EXPECT_EQ(pool.available_bytes(), 0u);
  EXPECT_EQ(pool.acquire(), kNoChunk);
  EXPECT_EQ(source.asked, 2);
  pool.release(chunks[7]);
  EXPECT_EQ(pool.acquire(), chunks[7]);
}

TEST(SlabPool, TheBudgetIsWholeSlabsBetweenOneAndTheMaximum) {
  AddressSource source;
  SlabPool pool(source, 0);
  EXPECT_EQ(pool.budget_bytes(), kSlabBytes);
  pool.set_budget_bytes(kSlabBytes);
  EXPECT_EQ(pool.budget_bytes(), kSlabBytes);
  pool.set_budget_bytes(kSlabBytes + 1);
  EXPECT_EQ(pool.budget_bytes(), 2 * kSlabBytes);
  pool.set_budget_bytes(kBudgetBytesMax - 1);
  EXPECT_EQ(pool.budget_bytes(), kBudgetBytesMax);
  pool.set_budget_bytes(UINT64_MAX);
  EXPECT_EQ(pool.budget_bytes(), kBudgetBytesMax);
}

TEST(SlabPool, ABudgetBelowWhatIsInUseTakesNothingAwayAndHandsNothingOut) {
  HeapSource source;
  SlabPool pool(source, 3 * kSlabBytes);
  const std::vector<ChunkId> chunks = acquire_slabs(pool, 2);
  pool.set_budget_bytes(kSlabBytes);
  EXPECT_EQ(pool.in_use_bytes(), 2 * kSlabBytes);
  EXPECT_EQ(pool.available_bytes(), 0u);
  for (uint32_t i = 0; i < kChunksPerSlab; ++i) {
    EXPECT_EQ(pool.acquire(), kNoChunk);
    pool.release(chunks[i]);
  }
  EXPECT_EQ(pool.acquire(), kNoChunk);
  pool.release(chunks[kChunksPerSlab]);
  EXPECT_EQ(pool.acquire(), chunks[kChunksPerSlab]);
}

TEST(SlabPool, EveryChunkOfTheLargestBudgetHasA16BitName) {
  AddressSource source;
  SlabPool pool(source, kBudgetBytesMax);
  std::vector<bool> seen(65'536);
  for (size_t i = 0; i < seen.size(); ++i) {
    const ChunkId chunk = pool.acquire();
    ASSERT_LT(chunk, seen.size());
    ASSERT_FALSE(seen[chunk]);
    seen[chunk] = true;
    ASSERT_EQ(reinterpret_cast<uintptr_t>(pool.data(chunk)), kSlabBytes + uintptr_t{chunk} * kChunkBytes);
  }
  EXPECT_EQ(pool.acquire(), kNoChunk);
  EXPECT_EQ(pool.mapped_bytes(), kBudgetBytesMax);
}

TEST(SlabPool, ASourceWithoutMemoryMeansNoChunkAndIsAskedAgain) {
  HeapSource source;
  source.empty = true;
  SlabPool pool(source, 2 * kSlabBytes);
  EXPECT_EQ(pool.acquire(), kNoChunk);
  EXPECT_EQ(pool.acquire(), kNoChunk);
  EXPECT_EQ(source.asked, 2);
  EXPECT_EQ(pool.mapped_bytes(), 0u);
  EXPECT_EQ(pool.available_bytes(), 2 * kSlabBytes);
  source.empty = false;
  EXPECT_EQ(pool.acquire(), 0u);
}

TEST(SlabPool, InUseIsSafeForAnyValueFromOutside) {
  HeapSource source;
  SlabPool pool(source, 4 * kSlabBytes);
  EXPECT_FALSE(pool.in_use(0));
  const ChunkId chunk = pool.acquire();
  EXPECT_TRUE(pool.in_use(chunk));
  for (const ChunkId other :
       {chunk + 1, kChunksPerSlab - 1, kChunksPerSlab, 65'535u, 65'536u, 0x8000'0000u, kNoChunk}) {
    EXPECT_FALSE(pool.in_use(other)) << other;
    EXPECT_EQ(pool.references(other), 0u) << other;
  }
  SCOPED_TRACE("EDGEWIRE_SEED=" + std::to_string(seed()));
  std::mt19937_64 random(seed());
  for (int i = 0; i < 10'000; ++i) {
    const ChunkId other = static_cast<ChunkId>(random());
    EXPECT_EQ(pool.in_use(other), other == chunk) << other;
  }
}

TEST(SlabPool, TrimGivesBackWhatWasFreeAtTheTrimBeforeTooAndKeepsTheLowest) {
  HeapSource source;
  SlabPool pool(source, 4 * kSlabBytes);
  release_all(pool, acquire_slabs(pool, 4));
  EXPECT_EQ(pool.trim(), 0u);
  EXPECT_EQ(pool.mapped_bytes(), 4 * kSlabBytes);
  EXPECT_EQ(pool.trim(), 3u);
  EXPECT_EQ(pool.mapped_bytes(), kSlabBytes);
  EXPECT_EQ(source.slabs.count(0), 1u);
  EXPECT_EQ(pool.trim(), 0u);
}

TEST(SlabPool, TrimLeavesASlabThatWasUsedInBetween) {
  HeapSource source;
  SlabPool pool(source, 3 * kSlabBytes);
  release_all(pool, acquire_slabs(pool, 3));
  EXPECT_EQ(pool.trim(), 0u);
  const ChunkId chunk = pool.acquire();  // of the third slab: it came back last
  pool.release(chunk);
  EXPECT_EQ(pool.trim(), 1u);
  EXPECT_EQ(source.slabs.count(chunk / kChunksPerSlab), 1u);
  EXPECT_EQ(pool.trim(), 1u);
}

TEST(SlabPool, TrimNeverTakesASlabWithAChunkInUse) {
  HeapSource source;
  SlabPool pool(source, 3 * kSlabBytes);
  std::vector<ChunkId> chunks = acquire_slabs(pool, 3);
  const ChunkId kept = chunks.back();
  chunks.pop_back();
  release_all(pool, chunks);
  EXPECT_EQ(pool.trim(), 0u);
  EXPECT_EQ(pool.trim(), 1u);  // of the two that are free one stays in reserve
  EXPECT_TRUE(pool.in_use(kept));
  std::memset(pool.data(kept), 1, kChunkBytes);
}

TEST(SlabPool, IndicesOfSlabsThatWentBackAreUsedAgainLowestFirst) {
  HeapSource source;
  SlabPool pool(source, 5 * kSlabBytes);
  std::vector<ChunkId> chunks = acquire_slabs(pool, 5);
  pool.retain(chunks.back());  // holds slab 4
  release_all(pool, chunks);
  pool.trim();
  EXPECT_EQ(pool.trim(), 3u);  // 1, 2 and 3; 0 is the reserve
  std::set<uint32_t> indices;
  for (const ChunkId chunk : acquire_slabs(pool, 3)) indices.insert(chunk / kChunksPerSlab);
  // 15 chunks of slab 4, 16 of slab 0, 16 of slab 1, one of slab 2.
  EXPECT_EQ(indices, (std::set<uint32_t>{0, 1, 2, 4}));
}

TEST(SlabPool, PoisonFillsAChunkWhenItsLastReferenceGoes) {
  HeapSource source;
  SlabPool pool(source, kSlabBytes);
  const ChunkId chunk = pool.acquire();
  uint8_t* const bytes = pool.data(chunk);
  std::memset(bytes, 7, kChunkBytes);
  pool.release(chunk);
  EXPECT_TRUE(is_filled_with(bytes, 7)) << "poisoned though poisoning is off";

  pool.set_poison(true);
  ASSERT_EQ(pool.acquire(), chunk);
  const ChunkId neighbour = pool.acquire();
  std::memset(pool.data(neighbour), 9, kChunkBytes);
  pool.retain(chunk);
  pool.release(chunk);
  EXPECT_TRUE(is_filled_with(bytes, 7)) << "poisoned while in use";
  pool.release(chunk);
  EXPECT_TRUE(is_filled_with(bytes, 0xDD));
  EXPECT_TRUE(is_filled_with(pool.data(neighbour), 9));
}

TEST(SlabPool, ThePeakStaysWhenChunksComeBack) {
  HeapSource source;
  SlabPool pool(source, 2 * kSlabBytes);
  release_all(pool, acquire_slabs(pool, 2));
  pool.release(pool.acquire());
  EXPECT_EQ(pool.in_use_bytes(), 0u);
  EXPECT_EQ(pool.in_use_peak_bytes(), 2 * kSlabBytes);
}

TEST(SlabPool, EndsByGivingBackEverySlabEvenWithChunksInUse) {
  HeapSource source;
  {
    SlabPool pool(source, 3 * kSlabBytes);
    acquire_slabs(pool, 2);
    EXPECT_EQ(source.slabs.size(), 2u);
  }
  EXPECT_TRUE(source.slabs.empty());
}

TEST(SlabPoolDeathTest, MisuseEndsTheProcess) {
  HeapSource source;
  SlabPool pool(source, kSlabBytes);
  const ChunkId chunk = pool.acquire();
  pool.release(chunk);
  EXPECT_DEATH(pool.release(chunk), "internal check failed");
  EXPECT_DEATH(pool.retain(chunk), "internal check failed");
  EXPECT_DEATH(pool.release(kChunksPerSlab), "internal check failed");
  EXPECT_DEATH(pool.release(kNoChunk), "internal check failed");
}

}  // namespace
}  // namespace edgewire::test
