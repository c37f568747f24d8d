#include "evaluate/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "files/error.h"

namespace kinefit {
namespace {

TEST(Metrics, AgreeWithTheReference) {
  const std::filesystem::path path =
      std::filesystem::path(KINEFIT_SHARED) / "parity" / "metrics.json";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not here";
  const nlohmann::json fixture = nlohmann::json::parse(std::ifstream(path));
  ScoreTable table;
  table.labels = fixture["labels"].get<std::vector<int64_t>>();
  for (const auto& row : fixture["scores"]) {
    table.classes = static_cast<int64_t>(row.size());
    for (const double score : row) table.scores.push_back(score);
  }
  for (const auto& [k, accuracy] : fixture["top_k"].items()) {
    EXPECT_NEAR(TopKAccuracy(table, std::stoll(k)), accuracy.get<double>(), 1e-9) << k;
  }
  EXPECT_NEAR(MeanClassAccuracy(table), fixture["mean_class"].get<double>(), 1e-9);
  std::vector<int64_t> confusion;
  for (const auto& row : fixture["confusion"]) {
    for (const int64_t count : row) confusion.push_back(count);
  }
  EXPECT_EQ(ConfusionMatrix(table), confusion);
}

TEST(Metrics, TiesRankTheHigherClassFirst) {
  // np.argsort([1, 1, 1, 0], kind="stable")[::-1] is 2, 1, 0, 3.
  ScoreTable table{4, {1, 1, 1, 0}, {2}};
  EXPECT_EQ(TopKAccuracy(table, 1), 1);
  table.labels = {1};
  EXPECT_EQ(TopKAccuracy(table, 1), 0);
  EXPECT_EQ(TopKAccuracy(table, 2), 1);
  table.labels = {0};
  EXPECT_EQ(TopKAccuracy(table, 2), 0);
  EXPECT_EQ(TopKAccuracy(table, 3), 1);
  table.labels = {3};
  EXPECT_EQ(TopKAccuracy(table, 3), 0);
  EXPECT_EQ(TopKAccuracy(table, 4), 1);
  EXPECT_EQ(TopKAccuracy(table, 9), 1);
}

TEST(Metrics, TiesPredictTheLowestClassInTheConfusionMatrix) {
  const ScoreTable table{3, {1, 1, 0}, {1}};
  EXPECT_EQ(Predictions(table), std::vector<int64_t>{0});
  EXPECT_EQ(ConfusionMatrix(table), (std::vector<int64_t>{0, 0, 0, 1, 0, 0, 0, 0, 0}));
}

TEST(Metrics, NotANumberRanksAsInNumpy) {
  const double nan = std::nan("");
  const ScoreTable table{3, {0.2, nan, nan}, {2}};
  EXPECT_EQ(TopKAccuracy(table, 1), 1);                    // np.argsort puts NaN last
  EXPECT_EQ(Predictions(table), std::vector<int64_t>{1});  // np.argmax takes the first NaN
}

TEST(Metrics, MeanClassCountsClassesOnlyPredicted) {
  // Labels 0 0 1, predictions 0 3 1, class 2 in neither: recalls 1/2, 1 and 0 for class 3.
  const ScoreTable table{4, {9, 0, 0, 0, 0, 0, 0, 9, 0, 9, 0, 0}, {0, 0, 1}};
  EXPECT_NEAR(MeanClassAccuracy(table), 1.5 / 3, 1e-12);
}

TEST(Metrics, SetOfOneClassAndEmptySet) {
  const ScoreTable one{1, {0.3, 0.7}, {0, 0}};
  EXPECT_EQ(TopKAccuracy(one, 1), 1);
  EXPECT_EQ(TopKAccuracy(one, 5), 1);
  EXPECT_EQ(MeanClassAccuracy(one), 1);
  EXPECT_EQ(ConfusionMatrix(one), std::vector<int64_t>{2});
  const ScoreTable empty{3, {}, {}};
  EXPECT_EQ(TopKAccuracy(empty, 1), 0);
  EXPECT_EQ(MeanClassAccuracy(empty), 0);
}

// Scores that predict these classes.
ScoreTable Predicting(int64_t classes, const std::vector<int64_t>& predictions,
                      const std::vector<int64_t>& labels) {
  ScoreTable table{classes, {}, labels};
  for (const int64_t best : predictions) {
    for (int64_t c = 0; c < classes; ++c) table.scores.push_back(c == best ? 1 : 0);
  }
  return table;
}

TEST(Metrics, F1IsThatOfEachClassAndOfAllTogether) {
  // Class 0: TP 1, FP 1, FN 1 -> 2/4. Class 1: TP 2, FP 1, FN 0 -> 4/5. Class 2: TP 1, FP 0, FN 1
  // -> 2/3. Class 3 does not occur. Micro: TP 4, FP 2, FN 2 -> 8/12. As sklearn.metrics.f1_score.
  const F1Scores f1 = ComputeF1(Predicting(4, {0, 1, 1, 1, 0, 2}, {0, 0, 1, 1, 2, 2}));
  EXPECT_NEAR(f1.macro, (0.5 + 0.8 + 2.0 / 3) / 3, 1e-12);
  EXPECT_NEAR(f1.micro, 4.0 / 6, 1e-12);
}

TEST(Metrics, MacroF1CountsClassesOnlyPredicted) {
  // Class 0: TP 1, FN 1 -> 2/3. Class 1: 1. Class 3: FP 1 -> 0. Class 2 in neither.
  const F1Scores f1 = ComputeF1(Predicting(4, {0, 3, 1}, {0, 0, 1}));
  EXPECT_NEAR(f1.macro, (2.0 / 3 + 1 + 0) / 3, 1e-12);
  EXPECT_NEAR(f1.micro, 2.0 / 3, 1e-12);
  EXPECT_EQ(ComputeF1({3, {}, {}}).macro, 0);
}

TEST(Metrics, CoarseScoresAreThoseOfEachGroupsBestClass) {
  const ScoreTable fine{4, {.1, .2, .4, .3, .5, .1, .1, .3}, {3, 3}};
  const ScoreTable coarse = CoarseTable(fine, {0, 1, 1, 0});
  EXPECT_EQ(coarse.classes, 2);
  EXPECT_EQ(coarse.labels, (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(coarse.scores, (std::vector<double>{.3, .4, .5, .1}));
  // The second clip's class is wrong (0 for 3), its group right.
  EXPECT_EQ(TopKAccuracy(fine, 1), 0);
  EXPECT_EQ(TopKAccuracy(coarse, 1), 0.5);
  EXPECT_THROW(CoarseTable(fine, {0, 1}), Error);
}

TEST(Metrics, TiedClassesGiveTheGroupOfThePredictedOne) {
  const ScoreTable fine{3, {.4, .4, .2}, {0}};
  EXPECT_EQ(Predictions(fine), std::vector<int64_t>{0});
  EXPECT_EQ(Predictions(CoarseTable(fine, {1, 0, 0})), std::vector<int64_t>{1});
  EXPECT_EQ(Predictions(CoarseTable(fine, {0, 1, 1})), std::vector<int64_t>{0});
  EXPECT_EQ(TopKAccuracy(CoarseTable(fine, {0, 1, 1}), 1), 1);
}

TEST(Metrics, TablesThatDoNotFitAreErrors) {
  EXPECT_THROW(TopKAccuracy({3, {1, 2}, {0}}, 1), Error);
  EXPECT_THROW(TopKAccuracy({2, {1, 2}, {2}}, 1), Error);
  EXPECT_THROW(ConfusionMatrix({2, {1, 2}, {-1}}), Error);
}

}  // namespace
}  // namespace kinefit
