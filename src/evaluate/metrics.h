#pragma once

#include <cstdint>
#include <vector>

namespace kinefit {

// Scores of N samples over C classes, row-major; ties are broken as numpy's stable argsort does in
// mmaction2's top_k_accuracy.
struct ScoreTable {
  int64_t classes = 0;
  std::vector<double> scores;   // [N, C]
  std::vector<int64_t> labels;  // [N]
  int64_t size() const { return static_cast<int64_t>(labels.size()); }
};

double TopKAccuracy(const ScoreTable& table, int64_t k);
double MeanClassAccuracy(const ScoreTable& table);  // over classes that occur, as mmaction2 does
// [C, C] counts: row = label, column = prediction.
std::vector<int64_t> ConfusionMatrix(const ScoreTable& table);

}  // namespace kinefit
