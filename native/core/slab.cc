#include "core/slab.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"

namespace edgewire {

namespace {

constexpr int kPoisonByte = 0xDD;

uint32_t budget_in_chunks(uint64_t budget_bytes) {
  // Held to the maximum first, so that rounding up cannot overflow.
  const uint64_t bytes = std::min(budget_bytes, kBudgetBytesMax);
  const uint64_t slabs = std::max<uint64_t>((bytes + kSlabBytes - 1) / kSlabBytes, 1);
  return static_cast<uint32_t>(slabs) * kChunksPerSlab;
}

}  // namespace

SlabPool::SlabPool(SlabSource& source, uint64_t budget_bytes)
    : source_(source), budget_chunks_(budget_in_chunks(budget_bytes)) {}

SlabPool::~SlabPool() {
  // Chunks may still be lent when an environment ends; the source decides how long their memory lives on.
  for (uint32_t index = 0; index < slabs_.size(); ++index) {
    if (slabs_[index].memory != nullptr) source_.release_slab(index);
  }
}

ChunkId SlabPool::acquire() noexcept {
  if (in_use_chunks_ >= budget_chunks_) return kNoChunk;
  if (free_head_ == kNoChunk && !grow()) return kNoChunk;

  const ChunkId chunk = free_head_;
  unlink_free(chunk);
  chunks_[chunk].references = 1;
  Slab& slab = slabs_[chunk / kChunksPerSlab];
  slab.free_chunks -= 1;
  slab.idle = false;
  in_use_chunks_ += 1;
  in_use_peak_chunks_ = std::max(in_use_peak_chunks_, in_use_chunks_);
  return chunk;
}

void SlabPool::release(ChunkId chunk) noexcept {
  EDGEWIRE_CHECK(in_use(chunk));
  if (--chunks_[chunk].references != 0) return;

  if (poison_) std::memset(data(chunk), kPoisonByte, kChunkBytes);
  slabs_[chunk / kChunksPerSlab].free_chunks += 1;
  in_use_chunks_ -= 1;
  push_free(chunk);
}

uint32_t SlabPool::trim() noexcept {
  uint32_t given_back = 0;
  bool kept_one = false;
  // Upwards, so that the idle slab that stays is the lowest: addresses stay small.
  for (uint32_t index = 0; index < slabs_.size(); ++index) {
    Slab& slab = slabs_[index];
    if (slab.memory == nullptr || slab.free_chunks != kChunksPerSlab) continue;
    if (!slab.idle) {
      slab.idle = true;
    } else if (!kept_one) {
      kept_one = true;
    } else {
      give_back(index);
      given_back += 1;
    }
  }
  return given_back;
}

void SlabPool::set_budget_bytes(uint64_t budget_bytes) noexcept { budget_chunks_ = budget_in_chunks(budget_bytes); }

// Only called with an empty free list. Then every mapped chunk is in use, and since that is below the budget and both
// are whole slabs, one more slab keeps the mapped memory within the budget too.
bool SlabPool::grow() noexcept {
  const uint32_t index = lowest_vacant_slab();
  uint8_t* const memory = source_.acquire_slab(index);
  if (memory == nullptr) return false;

  if (index == slabs_.size()) {
    slabs_.push_back({});
    chunks_.resize(chunks_.size() + kChunksPerSlab);
  }
  slabs_[index] = {.memory = memory, .free_chunks = kChunksPerSlab, .idle = false};
  mapped_slabs_ += 1;
  vacant_from_ = index + 1;
  // Downwards, so that a new slab is handed out from its first chunk on: pages are touched in order.
  const ChunkId first = index * kChunksPerSlab;
  for (ChunkId chunk = first + kChunksPerSlab; chunk-- > first;) push_free(chunk);
  return true;
}

uint32_t SlabPool::lowest_vacant_slab() const noexcept {
  uint32_t index = vacant_from_;
  while (index < slabs_.size() && slabs_[index].memory != nullptr) ++index;
  return index;
}

void SlabPool::give_back(uint32_t slab_index) noexcept {
  const ChunkId first = slab_index * kChunksPerSlab;
  for (ChunkId chunk = first; chunk < first + kChunksPerSlab; ++chunk) unlink_free(chunk);
  slabs_[slab_index] = {};
  mapped_slabs_ -= 1;
  vacant_from_ = std::min(vacant_from_, slab_index);
  source_.release_slab(slab_index);
}

void SlabPool::push_free(ChunkId chunk) noexcept {
  chunks_[chunk].next = free_head_;
  chunks_[chunk].previous = kNoChunk;
  if (free_head_ != kNoChunk) chunks_[free_head_].previous = chunk;
  free_head_ = chunk;
}

void SlabPool::unlink_free(ChunkId chunk) noexcept {
  const ChunkId next = chunks_[chunk].next;
  const ChunkId previous = chunks_[chunk].previous;
  if (next != kNoChunk) chunks_[next].previous = previous;
  if (previous != kNoChunk) {
    chunks_[previous].next = next;
  } else {
    free_head_ = next;
  }
}

}  // namespace edgewire
