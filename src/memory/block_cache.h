#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace kinefit {

// What stands in front of every piece of memory the CPU allocator hands out. LibTorch wants the
// data pointer itself as the context of its DataPtr (oneDNN allocates raw), so there is no other
// place to keep it without a table.
struct alignas(64) Block {
  uint64_t magic;     // whose block it is; set by the CPU allocator
  int64_t requested;  // bytes asked for, while it is handed out; likewise
  void* origin;       // what malloc returned, for a small block; likewise

  // The cache's own, guarded by its mutex. A region is memory without holes, cut into blocks.
  size_t size;      // bytes with this header, a multiple of 64
  Block* below;     // the neighbour at the lower address; null at the start of the region
  Block* previous;  // among the free blocks of its bin
  Block* next;
  bool free;
  bool last;  // no block stands above it in the region

  void* data() { return this + 1; }
};
static_assert(sizeof(Block) == 64);

// Large blocks of memory that are kept for the next taker when they are given back, so that the
// second step of a training run finds the pages of the first. Memory comes from the system in
// pieces of 2 MiB (huge pages where the system has them) that are appended to one growing region
// as long as the addresses behind it are free. A taker gets the smallest free block that fits, cut
// to size; blocks given back merge with free neighbours; the end of the growing region is used only
// where nothing else fits, so that a sequence of calls repeated from the same state needs no more
// memory than before. Nothing goes back to the system unless Release() is called, the limit would
// be passed, or the system refuses more. All functions are thread-safe.
class BlockCache {
 public:
  BlockCache() = default;
  ~BlockCache() { Release(); }  // REQUIRES: every block was given back
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  // A block with at least `bytes` bytes of data aligned to 64, uninitialised. Where this would make
  // the cache hold more than `limit` bytes (0: no limit), free blocks go back to the system first,
  // as many as needed. Then the cache holds at most the limit or, if that is more, what its takers
  // have and for each of their blocks up to 2 pages, and 2 MiB. If the system refuses memory, all
  // free blocks go back to it and it is asked again. Null if it refuses still.
  Block* Take(size_t bytes, size_t limit);

  // Takes a block back; needs no memory to do so.
  void Give(Block* block) noexcept;

  // Gives all whole pages of free blocks back to the system.
  void Release() noexcept;

  // Bytes of address space held: blocks that takers have, and free ones.
  size_t held() const { return held_.load(std::memory_order_relaxed); }

 private:
  // Free blocks by size: each power of two in 16 bins.
  static constexpr int kPowers = 48;
  static constexpr int kParts = 16;
  struct Bin {
    int power;
    int part;
  };

  static Bin BinOf(size_t size);
  bool Binned(const Block* block) const;
  void Insert(Block* block) noexcept;
  void Remove(Block* block) noexcept;
  Block* SmallestIn(Bin bin, size_t size) const;
  Block* FindFit(size_t size) const;
  Block* FindLargest() const;
  Block* Fit(size_t size) const;
  size_t Growth(size_t size) const;
  bool Grow(size_t size);
  bool Append(size_t bytes);
  bool AddRegion(size_t bytes);
  void CutOff(Block* block, size_t size) noexcept;
  void ReleaseSome(size_t bytes) noexcept;
  void ReleaseAll() noexcept;
  size_t Unmap(Block* block) noexcept;

  std::mutex mutex_;
  std::atomic<size_t> held_{0};
  Block* end_ = nullptr;  // the last block of the growing region; in no bin
  uint64_t powers_ = 0;   // bit p: some bin of this power is not empty
  std::array<uint16_t, kPowers> parts_{};
  std::array<std::array<Block*, kParts>, kPowers> bins_{};
};

}  // namespace kinefit
