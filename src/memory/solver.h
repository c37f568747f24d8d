#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "memory/rehearsal.h"
#include "model/recompute.h"

namespace kinefit {

// How long what takes, in forward multiply-accumulates and their equivalents: memory traffic counts
// kMacsPerByte for each byte. An estimate that orders plans, the same for CPU and GPU.
struct SegmentCosts {
  static constexpr double kMacsPerByte = 14;

  double network = 0;           // forward pass of everything, one clip
  std::vector<double> forward;  // of each segment
  std::vector<double> light;    // of what Keep::kSpatial runs again in it
  // What it costs to run again in the backward pass.
  double Extra(size_t segment, Keep keep) const {
    switch (keep) {
      case Keep::kConvolutions:
        return 0;
      case Keep::kSpatial:
        return light[segment];
      case Keep::kBlocks:
      case Keep::kStage:
        return forward[segment];
      case Keep::kStageBlocks:
        return by_halves[segment];
    }
    return 0;
  }
  std::vector<double> by_halves;  // as forward, each block as often as Keep::kStageBlocks runs it
};

SegmentCosts CostsOf(const Config& config, const std::vector<std::string>& segments);

// Time of a step that recomputes so, relative to one that recomputes nothing (forward 1, backward
// 2).
double RelativeTime(const SegmentCosts& costs, const Recompute& recompute,
                    const std::vector<std::string>& segments);

// Rehearsals of one batch, each with all segments in the same way.
using UniformRehearsals = std::map<Keep, Rehearsal>;

// The rehearsal of a batch between (or beyond) two that were made; memory is linear in the batch.
Rehearsal Interpolated(const Rehearsal& a, int64_t batch_a, const Rehearsal& b, int64_t batch_b,
                       int64_t batch);

// The peak when each segment goes its own way, from what is known of the uniform ones.
int64_t PredictedPeak(const UniformRehearsals& uniform, const std::vector<Keep>& keeps);

// The fastest way of recomputing, segment by segment, whose predicted peak is within `budget`: all
// combinations are looked at. False if there is none.
bool Solve(const UniformRehearsals& uniform, const SegmentCosts& costs,
           const std::vector<std::string>& segments, int64_t budget, Recompute* best);

}  // namespace kinefit
