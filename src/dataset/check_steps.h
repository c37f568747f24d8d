#pragma once

#include <cstdint>
#include <functional>

#include "dataset/check.h"

namespace kinefit {

// The parts of CheckDataset, in their order. Each appends to `result->findings`.

// Calls `work(i)` for i in [0, count) on `threads` threads (0: one per core) and `done(n)` after
// the n-th, one call at a time. Rethrows what the lowest i threw.
void ForEach(int threads, int64_t count, const std::function<void(int64_t)>& work,
             const std::function<void(int64_t)>& done);

// Fills result->clips and the findings about single annotations.
void CheckAnnotations(const Pickle& pickle, const CheckPlan& plan, const CheckProgress& progress,
                      CheckResult* result);

// Decodes the videos of result->clips.
void CheckVideos(const CheckPlan& plan, const CheckProgress& progress, CheckResult* result);

// Clips that splits have in common, classes that are missing, groups by name.
void CheckSplits(const CheckPlan& plan, CheckResult* result);

}  // namespace kinefit
