#pragma once

#include <cstdint>
#include <vector>

namespace kinefit {

// Scores of N samples over C classes, row-major.
struct ScoreTable {
  int64_t classes = 0;
  std::vector<double> scores;   // [N, C]
  std::vector<int64_t> labels;  // [N]
  int64_t size() const { return static_cast<int64_t>(labels.size()); }
};

// All throw Error for a table whose sizes do not fit together or with a label outside its classes.

// Share of the samples whose label is among the k best scores: among equal scores the higher class
// index ranks first, as mmaction2's reversed argsort has it. 0 for an empty table.
double TopKAccuracy(const ScoreTable& table, int64_t k);
// Mean recall over the classes that occur among the labels or the predictions (mmaction2
// mean_class_accuracy). 0 for an empty table.
double MeanClassAccuracy(const ScoreTable& table);
// [N]: the class with the highest score, the lowest index among equals (np.argmax, as mmaction2's
// confusion matrix has it; so with ties it may differ from TopKAccuracy's first).
std::vector<int64_t> Predictions(const ScoreTable& table);
// [C, C] counts: row = label, column = prediction.
std::vector<int64_t> ConfusionMatrix(const ScoreTable& table);


// F1 of a class is 2 TP / (2 TP + FP + FN) of Predictions. Macro: the mean over the classes that
// occur among the labels or the predictions; micro: of the sums of all classes, which with one label
// per sample is the accuracy. As sklearn's f1_score has them; 0 for an empty table.
struct F1Scores {
  double macro = 0;
  double micro = 0;
};
F1Scores ComputeF1(const ScoreTable& table);

// The same samples by coarse class: a group's score is that of its best class, so that the best
// group is the group of the predicted class. `group_of` [C]: the group of each class. Throws Error
// where it does not fit.
ScoreTable CoarseTable(const ScoreTable& table, const std::vector<int64_t>& group_of);

}  // namespace kinefit
