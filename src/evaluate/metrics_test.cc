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

TEST(Metrics, TablesThatDoNotFitAreErrors) {
  EXPECT_THROW(TopKAccuracy({3, {1, 2}, {0}}, 1), Error);
  EXPECT_THROW(TopKAccuracy({2, {1, 2}, {2}}, 1), Error);
  EXPECT_THROW(ConfusionMatrix({2, {1, 2}, {-1}}), Error);
}

}  // namespace
}  // namespace kinefit
