#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "memory/trace.h"

namespace kinefit {

// What one training step needs, found by running the real step on the meta device with a counting
// allocator (train/step_rehearsal.h): nothing of that size is ever allocated. Bytes.
struct Rehearsal {
  // Memory of one layer (its convolution, norm and activation) that is alive at the peak.
  struct Layer {
    std::string name;  // as in checkpoints, e.g. "backbone.rgb_path.layer3.0.conv1"
    int64_t bytes = 0;
  };

  int64_t weights = 0;  // each role at the moment of the peak
  int64_t gradients = 0;
  int64_t optimizer = 0;      // and the averaged weights (EMA)
  int64_t input = 0;          // the batch at hand
  int64_t prefetch = 0;       // batches that the loader holds ready
  int64_t saved = 0;          // activations kept for the backward pass
  int64_t temporaries = 0;    // gone within the layer that made them
  int64_t workspace = 0;      // what convolutions take for themselves while they run
  int64_t peak = 0;           // all of them together: the most that is allocated at once
  std::vector<Layer> layers;  // saved, temporaries and workspace by layer, largest first

  // The most that is allocated at once in validation; 0: no validation.
  int64_t validation_peak = 0;
  // On a GPU: what the caching allocator then holds, and context, workspaces and the like beside
  // it.
  int64_t reserved = 0;
  int64_t outside = 0;

  std::vector<int64_t> curve;  // most bytes alive in each of equal slices of the step
  double seconds = 0;          // how long the rehearsal took

  // What the device must have for the run.
  int64_t need() const {
    const int64_t own = reserved > 0 ? reserved + outside : peak;
    const int64_t validation = validation_peak > 0 ? validation_peak + outside : 0;
    return own > validation ? own : validation;
  }

  // For the choice of what to recompute (memory/solver.h).
  struct Phase {
    int segment = -1;       // index of the segment at work, -1: none of them
    uint32_t standing = 0;  // bit j: segment j holds what it keeps for its backward pass
    int64_t bytes = 0;      // most bytes alive in this phase less what those segments keep
  };
  std::vector<int64_t> kept;  // by segment, what it keeps between forward and backward
  std::vector<Phase> phases;
};

// Sums up what `trace` recorded of a step between the times `begin` and `end`. `segment_of` gives
// the index of a layer's segment or -1.
Rehearsal Summarise(const MemoryTrace& trace, int64_t begin, int64_t end, int segments,
                    const std::function<int(const std::string& layer)>& segment_of);

// The largest number up to `limit` with peak(number) <= budget, 0 if none, for any growing
// function. Asks for few if it is nearly linear.
int64_t LargestFitting(const std::function<int64_t(int64_t)>& peak, int64_t budget, int64_t limit);

}  // namespace kinefit
