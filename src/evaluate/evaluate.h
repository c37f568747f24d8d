#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "distributed/group.h"
#include "evaluate/metrics.h"
#include "loader/loader.h"
#include "model/network.h"

namespace kinefit {

// Scores per stream ("rgb", "pose", "fused_head" as far as they exist) and "fused", their weighted
// sum: each stream's softmax averaged over the sample's clips (mmaction2 average_clips="prob"),
// times eval.*_weight.
//
// Where config.model.groups are set, `coarse` has the groups' scores of the same streams: of the
// network's coarse classifiers, or where it has none, derived from the fine classes
// (`coarse_from_fine`, CoarseTable).
struct EvaluationResult {
  std::vector<std::string> ids;                             // [N]
  std::vector<std::pair<std::string, ScoreTable>> streams;  // the last one is "fused"
  std::vector<std::pair<std::string, ScoreTable>> coarse;   // empty without groups
  bool coarse_from_fine = false;
  std::vector<BadClip> bad_clips;
  const ScoreTable& fused() const { return streams.back().second; }
};

// Logits of all rows of `input` (on any device), run through the network in inference mode and
// without gradients, at most `rows_at_once` rows at a time; the features are left out. Restores the
// network's training flag.
NetworkOutput InferLogits(Network& network, const NetworkInput& input, int64_t rows_at_once,
                          uint64_t seed);

// One [N, classes] float64 tensor per stream, the last one "fused".
using StreamScores = std::vector<std::pair<std::string, at::Tensor>>;

// Averages softmax over `clips` adjacent rows of each stream's fine logits and fuses: the weighted
// sum of the streams, as mmaction2 has it; for a network with coarse classifiers the weighted mean,
// as PCAN's evaluation has it. Throws Error if the weights of the streams that exist sum to zero.
StreamScores FuseScores(const NetworkOutput& output, int64_t clips, const EvalConfig& eval);

// The same of the coarse logits ("rgb_coarse", "pose_coarse"), under the names of their streams.
// Empty for a network that has none.
StreamScores FuseCoarseScores(const NetworkOutput& output, int64_t clips, const EvalConfig& eval);

// Runs the network in inference mode over the whole set; restores its training flag.
// `progress(done, total)` may be empty. Results stand in the dataset's order; samples whose clip
// was bad are missing from them and listed. Throws Error if no sample is left or too many were bad.
// In a `group` of several ranks each scores its share of every batch and all get the whole result;
// where one runs out of memory all throw c10::OutOfMemoryError, where `progress` throws StopAsked
// on one, all throw that. null: this process alone.
EvaluationResult Evaluate(Network& network, const Dataset& dataset, const Config& config,
                          int64_t clips, bool flip,
                          const std::function<void(int64_t, int64_t)>& progress = {},
                          Group* group = nullptr);

}  // namespace kinefit
