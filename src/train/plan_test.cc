#include "memory/plan.h"

#include <gtest/gtest.h>

#include "memory/format_plan.h"
#include "ops/blocked.h"
#include "train/step_rehearsal.h"

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
  config.train.val_every = 0;
  return config;
}

int64_t NeedOf(Config config, int64_t batch, int64_t accumulate, const char* recompute = "lean") {
  config.train.batch_size = batch;
  config.train.accumulate = accumulate;
  config.memory.recompute = recompute;
  return RehearseStep(config).need();
}

PlanReport PlanFor(const Config& config, int64_t budget, bool exact = false, bool details = false) {
  PlanRequest request;
  request.budget = budget;
  request.exact = exact;
  request.details = details;
  return MakePlan(config, request, RehearseStep);
}

const Plan& Chosen(const PlanReport& report) {
  return report.plans.at(static_cast<size_t>(report.chosen));
}

TEST(Plan, LeavesAloneWhatFits) {
  const Config config = SmallConfig();
  const int64_t need = NeedOf(config, 12, 1);
  const PlanReport report = PlanFor(config, need, false, true);
  EXPECT_TRUE(report.fits());
  EXPECT_EQ(Chosen(report).batch_size, 12);
  EXPECT_EQ(Chosen(report).recompute, "lean");
  EXPECT_TRUE(Chosen(report).changes.empty());
  EXPECT_EQ(report.largest_batch, 12);
  EXPECT_NE(PlanParagraph(report).find("fits as written"), std::string::npos);
}

TEST(Plan, KeepsTheEffectiveBatchAndTheLearningRate) {
  Config config = SmallConfig();
  const int64_t budget = NeedOf(config, 5, 2);  // 5 would fit, but does not divide 12
  const PlanReport report = PlanFor(config, budget);
  EXPECT_FALSE(report.fits());
  const Plan plan = Chosen(report);
  EXPECT_EQ(plan.batch_size * plan.accumulate, 12);
  EXPECT_LE(plan.need, budget);
  Apply(plan, &config);
  EXPECT_LE(RehearseStep(config).need(), budget);
  EXPECT_EQ(config.train.optimizer.lr, 0.01);
  // The plan, planned again, is left alone.
  EXPECT_TRUE(PlanFor(config, budget).fits());
}

TEST(Plan, ExactPlansRecomputeAndSplitNothing) {
  const Config config = SmallConfig();
  const int64_t lean = NeedOf(config, 12, 1);
  const int64_t least = NeedOf(config, 12, 1, "full");
  ASSERT_LT(least, lean);
  const int64_t budget = (lean + least) / 2;
  const PlanReport report = PlanFor(config, budget, /*exact=*/true);
  ASSERT_GE(report.chosen, 0);
  EXPECT_EQ(Chosen(report).batch_size, 12);
  EXPECT_NE(Chosen(report).recompute, "lean");
  EXPECT_LE(Chosen(report).need, budget);
  EXPECT_EQ(PlanFor(config, least / 2, /*exact=*/true).chosen, -1);
}

TEST(Plan, KeepsToTheWayOfRecomputingThatIsConfigured) {
  Config config = SmallConfig();
  config.memory.recompute = "block";
  const PlanReport report = PlanFor(config, NeedOf(config, 6, 2, "block"));
  ASSERT_GE(report.chosen, 0);
  EXPECT_EQ(Chosen(report).recompute, "block");
  EXPECT_EQ(Chosen(report).batch_size, 6);
}

TEST(Plan, SplitsWhatIsAccumulatedAlready) {
  Config config = SmallConfig();
  config.train.batch_size = 6;
  config.train.accumulate = 2;
  const Plan plan = Chosen(PlanFor(config, NeedOf(config, 5, 2)));
  EXPECT_EQ(plan.batch_size * plan.accumulate, 12);
  EXPECT_LE(plan.batch_size, 6);
}

TEST(Plan, SaysSoWhenNothingFits) {
  const Config config = SmallConfig();
  const PlanReport report = PlanFor(config, NeedOf(config, 1, 2, "full") / 2, false, true);
  EXPECT_EQ(report.chosen, -1);
  EXPECT_EQ(report.largest_batch, 0);
  EXPECT_NE(FormatPlan(report).find("neither does a single clip"), std::string::npos);
}

TEST(Plan, TheMarginIsLeftFree) {
  const Config config = SmallConfig();
  PlanRequest request;
  request.budget = NeedOf(config, 12, 1);
  request.margin = 0.05;
  const PlanReport report = MakePlan(config, request, RehearseStep);
  EXPECT_FALSE(report.fits());
  EXPECT_LE(Chosen(report).need, request.budget * 95 / 100);
}

TEST(Plan, FallbacksNeedLessAndLess) {
  const Config config = SmallConfig();
  const PlanReport report = PlanFor(config, int64_t{1} << 40, false, true);
  const std::vector<Plan> chain = Fallbacks(report, report.as_written);
  ASSERT_GE(chain.size(), 3U);
  int64_t last = report.as_written.need;
  for (const Plan& plan : chain) {
    EXPECT_LT(plan.need, last);
    EXPECT_EQ(plan.batch_size * plan.accumulate, 12);
    last = plan.need;
  }
  EXPECT_EQ(chain.back().batch_size, 1);
}

TEST(Plan, AValidationThatWouldNotFitTakesFewerSamplesAtOnce) {
  Config config = SmallConfig();
  config.train.val_every = 1;
  config.eval.batch_size = 64;
  const PlanReport report = PlanFor(config, NeedOf(config, 12, 1) / 2);
  EXPECT_TRUE(report.fits());
  EXPECT_LT(Chosen(report).eval_batch_size, 64);
  Apply(Chosen(report), &config);
  EXPECT_EQ(config.eval.batch_size, Chosen(report).eval_batch_size);
}

// Of two plans that cost about the same the one that changes nothing in the mathematics.
TEST(Plan, RecomputesRatherThanSplitsWhereBothAreFast) {
  Config config = SmallConfig();
  config.model.rgb.base_channels = 32;
  config.model.pose.base_channels = 16;
  const Plan plan = Chosen(PlanFor(config, NeedOf(config, 12, 1) * 95 / 100));
  EXPECT_EQ(plan.batch_size, 12);
  EXPECT_TRUE(plan.changes.empty());
}

// Kept in oneDNN's layout, stages are faster than the plain composition; on a GPU they are not.
TEST(Plan, EstimatesTimeForTheDevice) {
  if (ChannelBlock() == 0) GTEST_SKIP() << "this processor computes in no blocked layout";
  Config config = SmallConfig();
  const int64_t plenty = int64_t{1} << 40;
  EXPECT_LT(PlanFor(config, plenty).as_written.time, 0.95);
  config.train.precision = "bf16";
  EXPECT_DOUBLE_EQ(PlanFor(config, plenty).as_written.time, 1);
  config.train.precision = "fp32";
  config.device = "cuda";
  EXPECT_NEAR(PlanFor(config, plenty).as_written.time, 1.3, 0.1);  // as measured
  config.memory.recompute = "none";
  EXPECT_DOUBLE_EQ(PlanFor(config, plenty).as_written.time, 1);
}

TEST(Plan, OnAGpuCacheAndContextCount) {
  Config config = SmallConfig();
  config.device = "cuda";
  const Rehearsal r = RehearseStep(config);
  EXPECT_GT(r.reserved, r.peak);
  EXPECT_GT(r.outside, 0);
  EXPECT_EQ(r.need(), r.reserved + r.outside);
}

TEST(Plan, PrintsRolesLayersAndVerdict) {
  const Config config = SmallConfig();
  const std::string text = FormatPlan(PlanFor(config, NeedOf(config, 5, 2), false, true));
  for (const char* part : {"batch 12 on cpu, fp32", "activations", "optimizer state",
                           "backbone.rgb_path.conv1", "12 x 1", "batch-norm statistics over"}) {
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
