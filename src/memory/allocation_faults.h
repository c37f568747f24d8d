#pragma once

#include <cstddef>
#include <cstdint>

namespace kinefit {

// Makes chosen allocations of the CPU allocator fail as if memory had run out, so that tests can
// try every recovery. All functions are thread-safe.
struct AllocationFault {
  int64_t after = 1;              // the `after`-th allocation from now on is refused; at least 1
  int64_t every = 0;              // and then every `every`-th after it; 0: only that one
  int64_t min_bytes = 0;          // only allocations of at least so many bytes count
  bool this_thread_only = false;  // only those of the calling thread count
};

// Replaces whatever was to fail before.
void InjectAllocationFault(const AllocationFault& fault);

// The n-th allocation from now on is refused, once.
void FailAllocationAfter(int64_t n);

// Nothing more is refused. Returns how many were since the fault was injected.
int64_t StopAllocationFaults();

// What $KINEFIT_FAIL_ALLOCATIONS holds: the allocations to refuse, counted from 1 on, for example
// "17,4000,90210"; null or empty: none. Throws Error for anything else.
void InjectAllocationFaults(const char* list);

// For the allocator: counts an allocation and says whether it is to fail. One load of a flag while
// nothing is to fail.
bool AllocationMustFail(size_t bytes);

}  // namespace kinefit
