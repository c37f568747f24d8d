#pragma once

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

}  // namespace kinefit
