#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"

namespace kinefit {

// What one training step needs, found by running the real step on the meta device with a counting
// allocator: nothing of that size is ever allocated.
struct Rehearsal {
  // Memory of one layer (its convolution, norm and activation) that is alive at the peak.
  struct Layer {
    std::string name;  // as in checkpoints, e.g. "backbone.rgb_path.layer3.0.conv1"
    int64_t bytes = 0;
  };

  int64_t weights = 0;  // bytes, each role at the moment of the peak
  int64_t gradients = 0;
  int64_t optimizer = 0;
  int64_t input = 0;          // batch and prefetched batches
  int64_t activations = 0;    // saved for backward and temporaries alive at the peak
  int64_t peak = 0;           // all of them together
  std::vector<Layer> layers;  // activations by layer, largest first
  double seconds = 0;         // how long the rehearsal took
};

// Rehearses forward, loss, backward and optimizer step of `config` with micro-batches of
// `batch_size` clips, in the state of a run's later steps (optimizer state there, gradients not).
// What the CPU's convolutions take for a moment depends on the number of threads: call it with the
// number the run will use. Not modelled yet: 16-bit precision (the figures are then those of
// float32), CUDA's workspaces and cache, memory that is not tensors (the program, the decoders).
// Thread-safe: rehearsals wait for one another. Throws Error where the configuration makes no
// network or the clip is too small for it.
Rehearsal Rehearse(const Config& config, int64_t batch_size);

// Largest micro-batch of at most `limit` clips whose peak is within `budget` bytes; 0 if none.
int64_t LargestBatch(const Config& config, int64_t budget, int64_t limit);

// The same for any `peak`, a growing function of the batch. Asks for few batches if it is nearly
// linear.
int64_t LargestFitting(const std::function<int64_t(int64_t)>& peak, int64_t budget, int64_t limit);

}  // namespace kinefit
