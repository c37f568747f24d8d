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
// kMacsPerByte for each byte. An estimate that orders plans. On the CPU stages that compute in
// oneDNN's own layout (ops/blocked.h) have other prices than the plain composition; the constants
// are fitted to what bench/plan_bench and bench/recompute_bench measure.
struct SegmentCosts {
  static constexpr double kMacsPerByte = 14;
  // The plain composition copies every operand into that layout and every result out of it: so much
  // longer it takes.
  static constexpr double kPlain = 0.18;
  // Running again in that layout: forward only, without those copies, and what it makes is still in
  // the processor's cache when the backward pass reads it. The share of its multiply-accumulates;
  // next to nothing for Keep::kSpatial, which also spares memory its largest tensors.
  static constexpr double kAgain = 0.4;
  static constexpr double kSpatialAgain = 0.1;
  // What a micro-batch takes on the CPU however few clips it has: so often its weights and their
  // gradients are read, written, copied between layouts; and starting each layer's kernels.
  static constexpr double kWeightPasses = 6;
  static constexpr double kMacsPerLayer = 2e7;
  // On a GPU, measured on an H100 with both networks at batch 20. A micro-batch takes as long as so
  // many clips' steps whatever its size. Of lean's step the plain one saves so much, as it neither
  // normalises nor activates again; and what is computed again takes so much of what its share in
  // the forward pass would say, as convolutions are little of that.
  static constexpr double kGpuMicroBatch = 2.6;
  static constexpr double kGpuPlain = 0.25;
  static constexpr double kGpuAgain = 0.25;

  double network = 0;             // forward pass of everything, one clip
  double plain = 0;               // what the plain composition's step takes beyond lean's, one clip
  double micro_batch = 0;         // what each micro-batch takes however many clips it has
  std::vector<double> forward;    // of each segment, when it runs again
  std::vector<double> light;      // of what Keep::kSpatial runs again in it
  std::vector<double> by_halves;  // as forward, each block as often as Keep::kStageBlocks runs it

  // What it costs to run again in the backward pass, one clip.
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
};

SegmentCosts CostsOf(const Config& config, const std::vector<std::string>& segments);

// Time of a step in micro-batches of `clips`, per clip: forward 1, backward 2, what runs again.
double TimePerClip(const SegmentCosts& costs, const Recompute& recompute,
                   const std::vector<std::string>& segments, int64_t clips);

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
