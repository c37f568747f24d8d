#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "evaluate/results.h"

namespace kinefit {

// `summary.json`: what `kinefit test --out` leaves for `kinefit compare` and for scripts:
// {"samples": 160, "streams": {"fused": {"top1": 0.97, "top5": 1.0, "mean_class": 0.97}, ...}}.
void WriteSummary(const std::string& path, const std::vector<StreamSummary>& streams,
                  size_t samples);

struct Summary {
  size_t samples = 0;
  std::vector<StreamSummary> streams;
};
// Throws Error for a file that is not one.
Summary ReadSummary(const std::string& path);

}  // namespace kinefit
