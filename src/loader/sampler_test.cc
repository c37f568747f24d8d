#include "loader/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "files/error.h"

namespace kinefit {
namespace {

Dataset SetOf(const std::vector<int64_t>& labels) {
  Dataset dataset;
  for (const int64_t label : labels) {
    dataset.samples.emplace_back();
    dataset.samples.back().label = label;
  }
  return dataset;
}

// Labels 0, 1, 2 with 40, 9 and 2 samples; label 5 has a single one.
Dataset UnevenSet() {
  std::vector<int64_t> labels;
  for (const auto& [label, count] : std::map<int64_t, int>{{0, 40}, {1, 9}, {2, 2}, {5, 1}}) {
    labels.insert(labels.end(), static_cast<size_t>(count), label);
  }
  return SetOf(labels);
}

std::map<int64_t, int> Counts(const std::vector<int64_t>& values) {
  std::map<int64_t, int> counts;
  for (const int64_t value : values) ++counts[value];
  return counts;
}

std::vector<int64_t> LabelsOf(const Dataset& dataset, const std::vector<int64_t>& order) {
  std::vector<int64_t> labels;
  for (const int64_t i : order) labels.push_back(dataset.samples[static_cast<size_t>(i)].label);
  return labels;
}

TEST(SamplerTest, ShuffleShowsEverySampleAsOftenAsAsked) {
  const Dataset dataset = SetOf(std::vector<int64_t>(17, 0));
  Config config;
  config.data.repeat = 3;
  const Sampler sampler(dataset, config, Phase::kTrain);
  ASSERT_EQ(sampler.samples(), 51);
  const std::vector<int64_t> order = sampler.Order(0);
  for (const auto& [index, count] : Counts(order)) EXPECT_EQ(count, 3) << index;
  EXPECT_EQ(Counts(order).size(), 17U);
  EXPECT_EQ(order, sampler.Order(0));
  EXPECT_NE(order, sampler.Order(1));
  config.seed = 1;
  EXPECT_NE(order, Sampler(dataset, config, Phase::kTrain).Order(0));
  const std::vector<int64_t> plain = Sampler(dataset, config, Phase::kTest).Order(3);
  EXPECT_EQ(plain.size(), 17U);
  EXPECT_TRUE(std::is_sorted(plain.begin(), plain.end()));
}

TEST(SamplerTest, BalancedSharesPlacesEvenlyAmongClasses) {
  const Dataset dataset = UnevenSet();  // 52 samples, 4 classes
  Config config;
  config.data.sampling = "balanced";
  const Sampler sampler(dataset, config, Phase::kTrain);
  std::set<int64_t> of_class_0;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const std::vector<int64_t> order = sampler.Order(epoch);
    ASSERT_EQ(order.size(), 52U);
    const std::map<int64_t, int> labels = Counts(LabelsOf(dataset, order));
    EXPECT_EQ(labels, (std::map<int64_t, int>{{0, 13}, {1, 13}, {2, 13}, {5, 13}}));
    for (const auto& [index, count] : Counts(order)) {
      if (index < 40) {
        EXPECT_EQ(count, 1);  // a large class repeats nothing
        of_class_0.insert(index);
      } else if (index < 49) {
        EXPECT_TRUE(count == 1 || count == 2) << count;  // all nine, then four of them again
      } else if (index < 51) {
        EXPECT_TRUE(count == 6 || count == 7) << count;
      }
    }
    EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  }
  EXPECT_EQ(of_class_0.size(), 40U);  // and shows all of its samples in time
  EXPECT_EQ(sampler.Order(4), sampler.Order(4));
  EXPECT_NE(sampler.Order(4), sampler.Order(5));
  // The test is never balanced.
  EXPECT_EQ(Counts(Sampler(dataset, config, Phase::kTest).Order(0)).size(), 52U);
}

TEST(SamplerTest, BalancedPlacesThatRemainGoToOtherClassesEachEpoch) {
  const Dataset dataset = SetOf({0, 0, 0, 1, 2});  // five places for three classes
  Config config;
  config.data.sampling = "balanced";
  const Sampler sampler(dataset, config, Phase::kTrain);
  std::map<int64_t, int> short_of_one;
  for (int64_t epoch = 0; epoch < 60; ++epoch) {
    for (const auto& [label, count] : Counts(LabelsOf(dataset, sampler.Order(epoch)))) {
      EXPECT_TRUE(count == 1 || count == 2);
      if (count == 1) ++short_of_one[label];
    }
  }
  for (const int64_t label : {0, 1, 2}) EXPECT_GT(short_of_one[label], 8) << label;
}

TEST(SamplerTest, AnEmptySetHasNoPlaces) {
  const Dataset dataset;
  Config config;
  EXPECT_TRUE(Sampler(dataset, config, Phase::kTrain).Order(0).empty());
  config.data.sampling = "balanced";
  EXPECT_TRUE(Sampler(dataset, config, Phase::kTrain).Order(0).empty());
  EXPECT_EQ(MicroBatches(0, 4).count(), 0);
}

// For many sizes: the ranks' parts of micro-batch i follow one another and make up what a single
// process with batches of batch * world has as its micro-batch i.
TEST(MicroBatchesTest, RanksPartitionTheSingleProcess) {
  for (int64_t samples = 0; samples < 40; ++samples) {
    for (const int64_t batch : {1, 3, 4}) {
      for (const int64_t world : {1, 2, 3, 8}) {
        for (const int64_t skipped : {int64_t{0}, samples / 3, samples}) {
          const MicroBatches single(samples, batch * world, {}, skipped);
          int64_t next = skipped;
          for (int64_t i = 0; i < single.count(); ++i) {
            int64_t least = samples;
            int64_t most = 0;
            for (int64_t rank = 0; rank < world; ++rank) {
              const MicroBatches part(samples, batch, {rank, world}, skipped);
              ASSERT_EQ(part.count(), single.count());
              const Places places = part.Of(i);
              ASSERT_EQ(places.begin, next);
              ASSERT_LE(places.size(), batch);
              next = places.end;
              least = std::min(least, places.size());
              most = std::max(most, places.size());
            }
            EXPECT_LE(most - least, 1);
            ASSERT_EQ(next, single.Of(i).end);
          }
          ASSERT_EQ(next, samples);
        }
      }
    }
  }
}

TEST(MicroBatchesTest, ARankMayGetNothingOfTheShortTail) {
  int64_t empty = 0;
  for (int64_t rank = 0; rank < 4; ++rank) {
    const MicroBatches part(18, 4, {rank, 4});
    ASSERT_EQ(part.count(), 2);
    EXPECT_EQ(part.Of(0).size(), 4);
    if (part.Of(1).size() == 0) ++empty;
  }
  EXPECT_EQ(empty, 2);
}

TEST(MicroBatchesTest, RefusesWhatMakesNoSense) {
  EXPECT_THROW(MicroBatches(10, 0), Error);
  EXPECT_THROW(MicroBatches(10, 2, {2, 2}), Error);
  EXPECT_THROW(MicroBatches(10, 2, {-1, 2}), Error);
  EXPECT_THROW(MicroBatches(10, 2, {0, 0}), Error);
  EXPECT_THROW(MicroBatches(10, 2, {}, 11), Error);
  EXPECT_THROW(MicroBatches(10, 2, {}, -1), Error);
}

}  // namespace
}  // namespace kinefit
