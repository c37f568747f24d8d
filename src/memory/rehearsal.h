#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"

namespace kinefit {

// What one training step needs, found by running the real step on the meta device with a counting
// allocator: nothing of that size is ever allocated.
struct Rehearsal {
  int64_t weights = 0;       // bytes, each role at the moment of the peak
  int64_t gradients = 0;
  int64_t optimizer = 0;
  int64_t input = 0;         // batch and prefetched batches
  int64_t activations = 0;   // saved for backward and temporaries alive at the peak
  int64_t peak = 0;          // all of them together
  double seconds = 0;        // how long the rehearsal took
};

// Rehearses forward, loss, backward and optimizer step of `config` with micro-batches of
// `batch_size` clips. Thread-safe with respect to CPU tensors, not to other rehearsals.
Rehearsal Rehearse(const Config& config, int64_t batch_size);

// Largest micro-batch of at most `limit` clips whose peak is within `budget` bytes; 0 if none.
int64_t LargestBatch(const Config& config, int64_t budget, int64_t limit);

}  // namespace kinefit
