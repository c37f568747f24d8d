#include "memory/plan.h"

#include <gtest/gtest.h>

#include "files/error.h"

namespace kinefit {
namespace {

Config SmallConfig() {
  Config config;
  config.model.type = "rgbpose";
  config.model.num_classes = 10;
  config.model.rgb.base_channels = 16;
  config.model.pose.base_channels = 8;
  config.data.crop = 64;
  config.data.heatmap.scaling = 0.25;
  config.train.batch_size = 12;
  config.train.optimizer.lr = 0.01;
  return config;
}

int64_t PeakOf(Config config, int64_t batch, int64_t accumulate) {
  config.train.accumulate = accumulate;
  return Rehearse(config, batch).peak;
}

TEST(Plan, LeavesAloneWhatFits) {
  Config config = SmallConfig();
  const int64_t need = PeakOf(config, 12, 1);
  const PlanReport report = MakePlan(config, need);
  EXPECT_TRUE(report.fits());
  EXPECT_EQ(report.chosen.batch_size, 12);
  EXPECT_EQ(report.chosen.accumulate, 1);
  EXPECT_EQ(report.largest_batch, 12);
  const std::string paragraph = ApplyPlan(config, need);
  EXPECT_EQ(config.train.batch_size, 12);
  EXPECT_EQ(config.train.accumulate, 1);
  EXPECT_NE(paragraph.find("fits as written"), std::string::npos) << paragraph;
}

TEST(Plan, KeepsTheEffectiveBatchAndTheLearningRate) {
  Config config = SmallConfig();
  const int64_t budget = PeakOf(config, 5, 2);  // 5 would fit, but does not divide 12
  const PlanReport report = MakePlan(config, budget);
  EXPECT_FALSE(report.fits());
  EXPECT_EQ(report.chosen.batch_size, 4);
  EXPECT_EQ(report.chosen.accumulate, 3);
  EXPECT_EQ(report.chosen.peak, PeakOf(config, 4, 3));
  EXPECT_LE(report.chosen.peak, budget);
  const std::string paragraph = ApplyPlan(config, budget);
  EXPECT_EQ(config.train.batch_size, 4);
  EXPECT_EQ(config.train.accumulate, 3);
  EXPECT_EQ(config.train.optimizer.lr, 0.01);
  EXPECT_NE(paragraph.find("batch-norm"), std::string::npos) << paragraph;
  // The plan, planned again, is left alone.
  EXPECT_TRUE(MakePlan(config, budget).fits());
}

TEST(Plan, SplitsWhatIsAccumulatedAlready) {
  Config config = SmallConfig();
  config.train.batch_size = 6;
  config.train.accumulate = 2;
  ApplyPlan(config, PeakOf(config, 5, 2));
  EXPECT_EQ(config.train.batch_size * config.train.accumulate, 12);
  EXPECT_EQ(config.train.batch_size, 4);
}

TEST(Plan, SaysSoWhenNothingFits) {
  Config config = SmallConfig();
  const int64_t budget = PeakOf(config, 1, 1) / 2;
  const PlanReport report = MakePlan(config, budget);
  EXPECT_EQ(report.chosen.batch_size, 0);
  EXPECT_EQ(report.largest_batch, 0);
  EXPECT_THROW(ApplyPlan(config, budget), Error);
  EXPECT_EQ(config.train.batch_size, 12);
  EXPECT_NE(FormatPlan(report).find("neither does a single clip"), std::string::npos);
}

TEST(Plan, PrintsRolesLayersAndVerdict) {
  const Config config = SmallConfig();
  const std::string text = FormatPlan(MakePlan(config, PeakOf(config, 5, 2)));
  for (const char* part : {"batch 12 on cpu, fp32", "activations", "optimizer state",
                           "backbone.rgb_path.conv1", "batch 4 x 3 accumulated"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in\n" << text;
  }
}

TEST(Budget, IsTheConfiguredOneOrTheMachines) {
  Config config;
  EXPECT_GT(DefaultBudget(config), 0);
  EXPECT_LT(DefaultBudget(config), MachineMemory());
  config.memory.budget = "3GiB";
  EXPECT_EQ(DefaultBudget(config), int64_t{3} << 30);
  config.memory.budget = "";
  config.device = "cuda";
  EXPECT_EQ(DefaultBudget(config), 0);
}

}  // namespace
}  // namespace kinefit
