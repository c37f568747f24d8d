#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "memory/trace.h"

namespace kinefit {

// What PyTorch's CUDA caching allocator makes of a sequence of allocations.
//
// A tensor does not take its own bytes from a GPU. The allocator takes *segments* from the driver
// and hands out *blocks* of them; a freed block stays in the cache. A run is out of memory when the
// segments (reserved bytes) no longer fit, which can be gigabytes before the tensors (allocated
// bytes) would not. Sums of tensor sizes cannot see that; following the allocator's rules can:
//
//  - A size is rounded up to 512 bytes. Up to 1 MiB it belongs to the small pool, above to the
//    large one. Each stream has its own two pools, and blocks never change pools.
//  - The smallest free block of the pool that is large enough is taken; of equal ones that with the
//    lowest address.
//  - If there is none, a segment is taken from the driver: 2 MiB for the small pool; in the large
//    pool 20 MiB for blocks under 10 MiB and the block's size rounded up to 2 MiB for others.
//  - What is left of a block is split off and stays free if it is at least 512 bytes (small pool)
//    or more than 1 MiB (large pool). Otherwise the whole block is handed out, and counts as
//    allocated.
//  - A freed block merges with the free blocks before and after it in its segment.
//  - If the driver has no memory left, all segments that are one free block go back to it and the
//    request is tried once more (a flush: the device waits, a step that does it is slow). Free
//    blocks of segments that are partly in use cannot go back. Then memory has run out.
//
// With PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True (PyTorch 2.1 and later) a pool is instead
// one range of addresses, as long as 9/8 of the device's memory, into which memory is mapped where
// it is needed, in granules of 2 MiB (small pool) or 20 MiB (large pool):
//
//  - Free and mapped memory at the end of the range is extended rather than left as a remainder.
//    New memory is mapped at the lowest address where the block fits.
//  - Remainders of 512 bytes and more are split off in both pools.
//  - A flush unmaps all granules that are wholly free, also between blocks in use.
//
// The rules are those of c10/cuda/CUDACachingAllocator.cpp with all other settings at their
// defaults: max_split_size_mb, roundup_power2_divisions, garbage_collection_threshold and CUDA
// graphs are not modelled, nor are blocks that other streams still use (record_stream). PyTorch
// 2.5.1's own allocator, run on a driver that only counts bytes, agrees with this one after every
// event of random sequences (DoesWhatPyTorchDoes in the test keeps some). On an H100 what 16 kinds
// of steps reserved was within 20 MiB of what this makes of their allocations: a real driver may
// place segments elsewhere (here each lies above all earlier ones, which decides between blocks of
// equal size only) and may not have memory in one piece.

struct CudaCacheOptions {
  bool expandable = false;  // expandable_segments:True
  int64_t capacity = 0;     // bytes of the device, as cudaMemGetInfo's total; 0 = unlimited
  int64_t outside = 0;      // bytes of these that are not PyTorch's: see cuda_constants.h
};

// Sizes in bytes. PyTorch's names: allocated is memory_allocated(), reserved is memory_reserved().
struct CudaCacheState {
  int64_t requested = 0;     // what the blocks in use were asked for
  int64_t allocated = 0;     // the blocks in use, with rounding and remainders too small to split
  int64_t reserved = 0;      // taken from the driver
  int64_t largest_free = 0;  // largest block of the cache that is not in use
  int64_t segments = 0;      // taken from the driver; if expandable, ranges with mapped memory

  // The part of the reserved memory that is not in use, 0 to 1.
  double fragmentation() const {
    return reserved == 0 ? 0 : 1 - static_cast<double>(allocated) / static_cast<double>(reserved);
  }
};

// The allocator of one device. Not thread-safe. An allocation or release costs the logarithm of the
// number of blocks; a flush looks at every free block.
class CudaCache {
 public:
  // Largest block that can be asked for: 2^50 bytes.
  static constexpr int64_t kLargestBlock = int64_t{1} << 50;

  // Throws Error for a negative capacity or outside.
  explicit CudaCache(const CudaCacheOptions& options = {});

  // Hands out a block of at least `bytes` (1 to kLargestBlock, else throws Error) to a stream
  // (0 to 255) and returns its id, or nothing if memory has run out; the cache can be used
  // on then. Ids are never used twice.
  std::optional<int64_t> Allocate(int64_t bytes, int stream = 0);

  // Throws Error if `id` was not handed out or is free already.
  void Free(int64_t id);

  // Gives what can be given back to the driver, as torch.cuda.empty_cache() does, and returns how
  // many bytes. Does not count as one of flushes().
  int64_t Flush();

  CudaCacheState state() const;
  int64_t peak_allocated() const { return peak_allocated_; }
  // The state when `reserved` first reached its peak, after the allocation that needed it.
  const CudaCacheState& at_peak() const { return at_peak_; }
  int64_t flushes() const { return flushes_; }  // flushes because the driver had no memory left
  int64_t device_free() const;                  // what the driver still has; max() if unlimited

  // What a segment is made of; for tests and for drawing the memory.
  struct Piece {
    enum class Use { kFree, kAllocated, kUnmapped };
    int64_t segment = 0;  // pieces of one segment lie one behind the other
    int64_t address = 0;
    int64_t bytes = 0;
    Use use = Use::kFree;
    int stream = 0;
    bool small = false;  // of the small pool
  };
  std::vector<Piece> Pieces() const;  // ascending addresses

  // Bytes the driver would be asked for if the cache has no block for `bytes` (not expandable).
  static int64_t SegmentBytes(int64_t bytes);

 private:
  static constexpr int kNone = -1;

  struct Block {
    int64_t address = 0;
    int64_t size = 0;
    int64_t requested = 0;
    int segment = 0;
    int pool = 0;
    int prev = kNone;  // neighbours in the segment
    int next = kNone;
    bool allocated = false;
    bool mapped = true;
    bool live = true;  // false: waits in recycled_ to be used again
  };
  struct FreeBlock {
    int64_t size;
    int64_t address;
    int block;
    bool operator<(const FreeBlock& other) const {
      return size != other.size ? size < other.size : address < other.address;
    }
  };
  // Pool 2 s is the small one of stream s, pool 2 s + 1 the large one.
  struct Pool {
    std::set<FreeBlock> free;
    std::map<int64_t, int> unmapped;  // address -> block; empty unless expandable
  };

  static bool IsSmall(int pool) { return pool % 2 == 0; }
  static int64_t Granule(int pool);
  int PoolFor(int64_t size, int stream);
  int NewBlock(const Block& block);
  void Recycle(int block);
  int NewSegment(int pool, int64_t size, bool mapped);
  void InsertFree(int block);
  void EraseFree(int block);

  // Each returns the block found, out of its pool's free blocks, or kNone.
  int TakeFree(int pool, int64_t size);
  int TakeFromDriver(int pool, int64_t size);
  int TakeSegment(int pool, int64_t size);
  int TakeMapped(int pool, int64_t size);

  int FindRoom(int pool, int64_t size);
  bool HasRoom(int first, int64_t size) const;
  bool Map(int block, int64_t bytes);
  void Unmap(int block);
  bool Splits(int pool, int64_t remainder) const;
  int SplitOff(int block, int64_t size);
  void Absorb(int block, int neighbour);
  void Reserve(int segment, int64_t bytes);
  void FlushPool(int pool);

  CudaCacheOptions options_;
  std::vector<Pool> pools_;
  std::vector<Block> blocks_;
  std::vector<int> recycled_;
  std::vector<int> handed_out_;            // id -> block, kNone once freed
  std::vector<int64_t> segment_reserved_;  // by segment
  int64_t next_address_ = 0;
  int64_t requested_ = 0;
  int64_t allocated_ = 0;
  int64_t peak_allocated_ = 0;
  int64_t reserved_ = 0;
  int64_t segments_ = 0;
  int64_t flushes_ = 0;
  CudaCacheState at_peak_;
};

// Why a replay ended early.
struct CudaOutOfMemory {
  int64_t block = 0;      // index into the trace
  int64_t time = 0;       // its `born`
  int64_t requested = 0;  // its `bytes`
  int64_t tried = 0;      // "Tried to allocate" of PyTorch's message: the segment's bytes
  CudaCacheState state;   // after the flush that did not help
  int64_t device_free = 0;
};

struct CudaReplay {
  int64_t peak_allocated = 0;
  CudaCacheState at_peak;  // when `reserved` first reached its peak
  CudaCacheState at_end;   // after the last event or, if memory ran out, at that moment
  int64_t flushes = 0;
  std::optional<CudaOutOfMemory> out_of_memory;  // the replay ended there
};

// Replays a trace on one stream. `blocks` in the order of `born`, as MemoryTrace records them; a
// block that dies when another is born is freed first; blocks of no bytes take nothing. A trace of
// 20,000 events takes a few milliseconds. Throws Error for blocks out of order, of a negative
// size, or that die no later than they are born.
CudaReplay ReplayOnCuda(const std::vector<TracedBlock>& blocks,
                        const CudaCacheOptions& options = {});

}  // namespace kinefit
