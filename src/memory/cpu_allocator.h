#pragma once

#include <cstdint>

namespace kinefit {

// LibTorch's CPU allocator for programs that train: every CPU tensor (and oneDNN's scratch memory,
// which LibTorch takes from the same allocator) comes from here. It counts what is alive, refuses
// what would pass a budget, and hands the memory that one step frees to the next, which spares that
// step the page faults. Pieces of 64 KiB and more come from a cache (block_cache.h), smaller ones
// from malloc. All functions are thread-safe.
//
// Where memory is refused, by the budget or by the system, a c10::OutOfMemoryError is thrown from
// the operation that asked for it: "out of memory: tried to allocate 62.00 MiB; 5.90 GiB of the
// budget of 6.00 GiB are in use". Tensors made before stay as they were; dropping some and trying
// again is allowed. docs/testing.md says how to make allocations fail on purpose.

// Makes it the CPU allocator for the rest of the process. Call it at the start of the program:
// tensors that exist already keep their memory and are not counted. Later calls do nothing.
// Throws Error if $KINEFIT_FAIL_ALLOCATIONS is malformed (allocation_faults.h).
void InstallCpuAllocator();

struct MemoryUse {
  int64_t current = 0;      // bytes alive, exactly as asked for
  int64_t peak = 0;         // most bytes alive at once since the last ResetPeak()
  int64_t allocations = 0;  // how many were granted since the program's start
  int64_t held = 0;         // bytes the cache has from the system, in use or free
};

// All zero before InstallCpuAllocator().
MemoryUse CpuMemoryUse();

// Starts a new peak at what is alive now.
void ResetPeak();

// From now on the bytes alive never exceed `bytes`, whatever the number of threads: an allocation
// that would is refused. 0: no budget. What is alive already stays, even if it is more. The memory
// held by the cache stays close to the budget too: before it would pass it, free memory goes back
// to the system, so it is at most the budget or, where more, what is alive and for each piece of
// 64 KiB or more up to two pages, and 2 MiB.
void SetMemoryBudget(int64_t bytes);
int64_t MemoryBudget();

// Gives what the cache holds free back to the system.
void ReleaseCache();

// A little memory set aside for work that must not stop half-way, such as the update of the weights
// in place: while a Use lives, what its thread allocates comes out of the reserve and is refused
// neither by the budget nor by an injected fault, as long as the reserve lasts. It is counted as
// alive from beginning to end. One reserve at a time gives; making another one is allowed.
class AllocationReserve {
 public:
  // Throws c10::OutOfMemoryError if the budget has not as much left.
  explicit AllocationReserve(int64_t bytes);
  ~AllocationReserve();
  AllocationReserve(const AllocationReserve&) = delete;
  AllocationReserve& operator=(const AllocationReserve&) = delete;

  class Use {
   public:
    Use();
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
  };

 private:
  int64_t bytes_;
};

}  // namespace kinefit
