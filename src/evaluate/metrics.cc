#include "evaluate/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "files/error.h"

namespace kinefit {
namespace {

void CheckTable(const ScoreTable& table) {
  if (table.classes < 1 ||
      table.scores.size() != table.labels.size() * static_cast<size_t>(table.classes)) {
    throw Error("a score table of " + std::to_string(table.scores.size()) +
                " scores does not fit " + std::to_string(table.size()) + " labels and " +
                std::to_string(table.classes) + " classes");
  }
  for (const int64_t label : table.labels) {
    if (label < 0 || label >= table.classes) {
      throw Error("label " + std::to_string(label) + " is outside the " +
                  std::to_string(table.classes) + " classes");
    }
  }
}

// numpy's order for sorting: NaN behind everything else.
bool SortsBefore(double a, double b) { return a < b || (std::isnan(b) && !std::isnan(a)); }

// How many classes rank above `label`: np.argsort ascending, read from the end, so that among equal
// scores the higher class index ranks higher.
int64_t RankOf(const double* scores, int64_t classes, int64_t label) {
  int64_t above = 0;
  for (int64_t c = 0; c < classes; ++c) {
    const bool higher = SortsBefore(scores[label], scores[c]);
    const bool tied = !higher && !SortsBefore(scores[c], scores[label]);
    if (higher || (tied && c > label)) ++above;
  }
  return above;
}

}  // namespace

double TopKAccuracy(const ScoreTable& table, int64_t k) {
  CheckTable(table);
  if (table.labels.empty()) return 0;
  int64_t hits = 0;
  for (int64_t i = 0; i < table.size(); ++i) {
    if (RankOf(table.scores.data() + i * table.classes, table.classes, table.labels[i]) < k) ++hits;
  }
  return static_cast<double>(hits) / static_cast<double>(table.size());
}

std::vector<int64_t> Predictions(const ScoreTable& table) {
  CheckTable(table);
  std::vector<int64_t> predictions;
  for (int64_t i = 0; i < table.size(); ++i) {
    const double* scores = table.scores.data() + i * table.classes;
    predictions.push_back(std::max_element(scores, scores + table.classes, SortsBefore) - scores);
  }
  return predictions;
}

std::vector<int64_t> ConfusionMatrix(const ScoreTable& table) {
  const std::vector<int64_t> predictions = Predictions(table);
  std::vector<int64_t> matrix(table.classes * table.classes, 0);
  for (int64_t i = 0; i < table.size(); ++i) {
    ++matrix[table.labels[i] * table.classes + predictions[i]];
  }
  return matrix;
}

double MeanClassAccuracy(const ScoreTable& table) {
  const std::vector<int64_t> matrix = ConfusionMatrix(table);
  double sum = 0;
  int64_t occurring = 0;
  for (int64_t c = 0; c < table.classes; ++c) {
    int64_t labelled = 0;
    int64_t predicted = 0;
    for (int64_t other = 0; other < table.classes; ++other) {
      labelled += matrix[c * table.classes + other];
      predicted += matrix[other * table.classes + c];
    }
    if (labelled > 0) sum += static_cast<double>(matrix[c * table.classes + c]) / labelled;
    if (labelled > 0 || predicted > 0) ++occurring;
  }
  return occurring > 0 ? sum / static_cast<double>(occurring) : 0;
}

F1Scores ComputeF1(const ScoreTable& table) {
  const std::vector<int64_t> matrix = ConfusionMatrix(table);
  F1Scores f1;
  int64_t occurring = 0;
  int64_t all_hits = 0;
  int64_t all_counted = 0;  // 2 TP + FP + FN: how often the class is labelled plus predicted
  for (int64_t c = 0; c < table.classes; ++c) {
    int64_t counted = 0;
    for (int64_t other = 0; other < table.classes; ++other) {
      counted += matrix[c * table.classes + other] + matrix[other * table.classes + c];
    }
    const int64_t hits = matrix[c * table.classes + c];
    all_hits += hits;
    all_counted += counted;
    if (counted == 0) continue;
    ++occurring;
    f1.macro += 2 * static_cast<double>(hits) / static_cast<double>(counted);
  }
  if (occurring == 0) return {};
  f1.macro /= static_cast<double>(occurring);
  f1.micro = 2 * static_cast<double>(all_hits) / static_cast<double>(all_counted);
  return f1;
}

ScoreTable CoarseTable(const ScoreTable& table, const std::vector<int64_t>& group_of) {
  CheckTable(table);
  if (group_of.size() != static_cast<size_t>(table.classes)) {
    throw Error(std::to_string(group_of.size()) + " classes are in groups, but there are scores of " +
                std::to_string(table.classes));
  }
  const std::vector<int64_t> predictions = Predictions(table);
  ScoreTable coarse;
  coarse.classes = *std::max_element(group_of.begin(), group_of.end()) + 1;
  for (int64_t i = 0; i < table.size(); ++i) {
    const double* scores = table.scores.data() + i * table.classes;
    std::vector<double> best(static_cast<size_t>(coarse.classes),
                             -std::numeric_limits<double>::infinity());
    for (int64_t c = 0; c < table.classes; ++c) {
      double& group = best[static_cast<size_t>(group_of[c])];
      if (SortsBefore(group, scores[c])) group = scores[c];
    }
    // Among equal scores the predicted class decides, which need not be in the first group.
    double& first = best[static_cast<size_t>(group_of[predictions[i]])];
    const bool tied = std::count(best.begin(), best.end(), first) > 1;
    if (tied) first = std::nextafter(first, std::numeric_limits<double>::infinity());
    coarse.scores.insert(coarse.scores.end(), best.begin(), best.end());
    coarse.labels.push_back(group_of[table.labels[i]]);
  }
  return coarse;
}

}  // namespace kinefit
