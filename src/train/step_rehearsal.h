#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "config/config.h"
#include "memory/rehearsal.h"

namespace kinefit {

// Rehearses TrainStep for `config` on the meta device, in the state of a run's later steps
// (optimizer state and averaged weights there, gradients not): each micro-batch's forward and
// backward pass, accumulation, clipping, update; and the forward pass of its validation, if it has
// one. What the CPU's convolutions take for a moment depends on the number of threads: call it with
// the number the run will use. Thread-safe: rehearsals wait for one another. Throws Error where the
// configuration makes no network or the clip is too small for it.
Rehearsal RehearseStep(const Config& config);

// The same for one of `world` ranks: the buckets that gradients are exchanged in are there too.
// What Gloo or NCCL take for themselves is not counted (a GPU's: memory/cuda_constants.h).
Rehearsal RehearseRankStep(const Config& config, int64_t world);

// Indices of the network's parameters in the order in which the backward pass completes their
// gradients, found by a rehearsal.
std::vector<size_t> GradientOrder(const Config& config);

}  // namespace kinefit
