#pragma once

#include <string>
#include <vector>

#include "apps/kinefit/summary.h"
#include "evaluate/evaluate.h"

namespace kinefit {

// Makes `folder` for the files of a test. Throws Error if it holds something else than an earlier
// test's results, unless `force`.
void PrepareResultsFolder(const std::string& folder, bool force);

// Writes everything a test leaves into `folder` and returns the files' names, for the last line of
// output. `group_names` may be empty.
std::vector<std::string> WriteResults(const std::string& folder, const EvaluationResult& result,
                                      const Summary& summary,
                                      const std::vector<std::string>& class_names,
                                      const std::vector<std::string>& group_names);

}  // namespace kinefit
