#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "evaluate/results.h"

namespace kinefit {

// What was tested, and how.
struct TestedWith {
  std::string checkpoint;
  std::string config;
  std::string annotations;
  std::string split;  // "" = everything
  int64_t clips = 0;  // 0 in a summary of an older version, which does not say any of this
  bool flip = false;
  int64_t label_offset = 0;
  std::vector<std::pair<std::string, double>> weights;  // of the streams in the fused score
  std::string version;
};

// `summary.json`: what `kinefit test --out` leaves for `kinefit compare` and for scripts:
// {"samples": 160, "checkpoint": ..., "config": ..., ..., "streams": {"fused": {"top1": 0.97,
// "top5": 1.0, "mean_class": 0.97, "macro_f1": ..., "micro_f1": ...}, ...}, "groups": {"from":
// "classifier" or "fine", "streams": {"fused": {"top1": ..., "mean_f1": ...}, ...}}}.
struct Summary {
  size_t samples = 0;
  TestedWith with;
  std::vector<StreamSummary> streams;  // "fused" last
  std::vector<StreamSummary> coarse;   // the same streams; empty without groups
  bool coarse_from_fine = false;
};

Summary MakeSummary(const EvaluationResult& result, const TestedWith& with);
void WriteSummary(const std::string& path, const Summary& summary);
// Throws Error for a file that is not one. Those of older versions are read.
Summary ReadSummary(const std::string& path);

// The weights of the streams in the fused score, as the configuration has them.
std::vector<std::pair<std::string, double>> StreamWeights(const EvaluationResult& result,
                                                          const EvalConfig& eval);

}  // namespace kinefit
