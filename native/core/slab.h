// The slab pool: every byte that edgewire reads or holds for a slow peer lies in a chunk of it.
//
// Terms
//   slab   1 MiB of memory from a SlabSource (in Node: an ArrayBuffer, so that JavaScript can view it)
//   chunk  64 KiB of a slab; the unit of reference counting
//   span   bytes inside one chunk, named by an address: chunk << 16 | offset
//
//   slab 0                                   slab 1
//   +--------+--------+-----+---------+     +---------+-----
//   | chunk 0| chunk 1| ... | chunk 15|     | chunk 16| ...
//   +--------+--------+-----+---------+     +---------+-----
//
// A chunk is in exactly one place: on the free list (references 0) or in use (references >= 1). The free list is
// last-in-first-out, so the chunk that comes next is the one whose lines are still in the cache. The pool grows a slab
// at a time up to its budget; at the budget acquire() answers kNoChunk and the caller waits (reads pause, the kernel's
// window closes on the senders). Slabs whose chunks have all been free since the last trim() but one are given back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/check.h"

namespace edgewire {

using ChunkId = uint32_t;

constexpr uint32_t kChunkBytesLog2 = 16;
constexpr uint32_t kChunkBytes = 1u << kChunkBytesLog2;
constexpr uint32_t kChunksPerSlab = 16;
constexpr uint32_t kSlabBytes = kChunkBytes * kChunksPerSlab;
// An address has 16 bits for the chunk: 65,536 chunks, 4 GiB.
constexpr uint64_t kBudgetBytesMax = uint64_t{kChunkBytes} << 16;
constexpr ChunkId kNoChunk = UINT32_MAX;

// Where slabs come from. The core's tests use the C heap, the addon uses ArrayBuffers.
class SlabSource {
 public:
  virtual ~SlabSource() = default;
  // Memory of kSlabBytes for slab `index`, valid until release_slab(index); nullptr when there is none.
  virtual uint8_t* acquire_slab(uint32_t index) noexcept = 0;
  virtual void release_slab(uint32_t index) noexcept = 0;
};

class SlabPool {
 public:
  // `budget_bytes` is rounded up to whole slabs and held to 1 .. kBudgetBytesMax / kSlabBytes slabs.
  SlabPool(SlabSource& source, uint64_t budget_bytes);
  ~SlabPool();
  SlabPool(const SlabPool&) = delete;
  SlabPool& operator=(const SlabPool&) = delete;

  // A chunk with one reference, or kNoChunk at the budget or when the source has no memory.
  ChunkId acquire() noexcept;
  void retain(ChunkId chunk) noexcept {
    EDGEWIRE_CHECK(in_use(chunk));
    // A count that wraps would free a chunk under its holders.
    EDGEWIRE_CHECK(chunks_[chunk].references != UINT32_MAX);
    chunks_[chunk].references += 1;
  }
  // Drops a reference; the last one puts the chunk on the free list.
  void release(ChunkId chunk) noexcept;
  // Is `chunk` a chunk in use? For values that come from outside (a command of JavaScript).
  bool in_use(ChunkId chunk) const noexcept { return references(chunk) != 0; }
  uint32_t references(ChunkId chunk) const noexcept { return chunk < chunks_.size() ? chunks_[chunk].references : 0; }

  // Valid while the caller holds a reference.
  uint8_t* data(ChunkId chunk) const noexcept {
    return slabs_[chunk / kChunksPerSlab].memory + size_t{chunk % kChunksPerSlab} * kChunkBytes;
  }

  // Gives back the slabs that were wholly free now and at the trim() before, all but one. Call every few seconds.
  // Returns how many were given back.
  uint32_t trim() noexcept;

  // Switches poisoning on: a returned chunk is filled with 0xDD so that a view kept too long shows itself.
  void set_poison(bool on) noexcept { poison_ = on; }
  // A new budget; when it is below what is in use, nothing is taken away, but nothing more is handed out either.
  void set_budget_bytes(uint64_t budget_bytes) noexcept;

  uint64_t budget_bytes() const noexcept { return uint64_t{budget_chunks_} * kChunkBytes; }
  // Chunks with a reference, and the most there were.
  uint64_t in_use_bytes() const noexcept { return uint64_t{in_use_chunks_} * kChunkBytes; }
  uint64_t in_use_peak_bytes() const noexcept { return uint64_t{in_use_peak_chunks_} * kChunkBytes; }
  uint64_t mapped_bytes() const noexcept { return uint64_t{mapped_slabs_} * kSlabBytes; }  // slabs held
  // What acquire() can still give. A lowered budget may lie below what is in use.
  uint64_t available_bytes() const noexcept {
    return budget_chunks_ > in_use_chunks_ ? uint64_t{budget_chunks_ - in_use_chunks_} * kChunkBytes : 0;
  }

 private:
  // 12 bytes of metadata for 64 KiB. The free list is doubly linked because trim() takes chunks out of its middle.
  struct Chunk {
    uint32_t references;  // 0: on the free list, or its slab is not mapped
    ChunkId next;         // both valid on the free list only; kNoChunk at its ends
    ChunkId previous;
  };
  static_assert(sizeof(Chunk) <= 16);

  struct Slab {
    uint8_t* memory;       // nullptr: given back, the index is vacant
    uint32_t free_chunks;  // kChunksPerSlab: wholly free
    bool idle;             // wholly free ever since the last trim()
  };

  bool grow() noexcept;
  uint32_t lowest_vacant_slab() const noexcept;
  void give_back(uint32_t slab_index) noexcept;
  void push_free(ChunkId chunk) noexcept;
  void unlink_free(ChunkId chunk) noexcept;

  SlabSource& source_;
  std::vector<Slab> slabs_;    // by slab index; vacant entries stay
  std::vector<Chunk> chunks_;  // by chunk; kChunksPerSlab for each entry of slabs_
  ChunkId free_head_ = kNoChunk;
  uint32_t vacant_from_ = 0;  // every slab index below it is mapped
  uint32_t mapped_slabs_ = 0;
  uint32_t in_use_chunks_ = 0;
  uint32_t in_use_peak_chunks_ = 0;
  uint32_t budget_chunks_ = 0;
  bool poison_ = false;
};

}  // namespace edgewire
