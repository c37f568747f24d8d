#pragma once

#include <cstdint>

namespace kinefit {

// Counts the bytes of all CPU tensors (and of oneDNN's scratch memory, which LibTorch takes from
// the same allocator). All functions are thread-safe and cost a few atomic operations.

// Makes the counting allocator LibTorch's CPU allocator for the rest of the process. Call it at
// the start of the program: tensors that exist already keep their memory and are not counted.
// Later calls do nothing.
void InstallAccounting();

struct MemoryUse {
  int64_t current = 0;      // bytes alive
  int64_t peak = 0;         // most bytes alive at once since the last ResetPeak()
  int64_t allocations = 0;  // how many since the program's start
};

// All zero before InstallAccounting().
MemoryUse CpuMemoryUse();

// Starts a new peak at what is alive now.
void ResetPeak();

}  // namespace kinefit
