#pragma once

#include <cstdint>
#include <functional>

namespace kinefit {

// Calls `work` for 0..count-1, each once, on `threads` threads (0 = one per core). The first
// exception stops the others after their current piece and is thrown here.
void ForEachInParallel(int64_t count, int threads, const std::function<void(int64_t)>& work);

}  // namespace kinefit
