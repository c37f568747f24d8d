#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "files/error.h"

namespace kinefit {
namespace {

ScheduleConfig Rule(const std::string& type, int64_t begin = 0, int64_t end = -1) {
  ScheduleConfig rule;
  rule.type = type;
  rule.begin = begin;
  rule.end = end;
  return rule;
}

TrainLength Length(int64_t epochs, int64_t steps) { return {steps, epochs, epochs * steps}; }

std::vector<double> PerEpoch(LearningRate& rate, const TrainLength& length) {
  std::vector<double> values;
  for (int64_t e = 0; e < length.epochs; ++e) values.push_back(rate.At(e * length.steps_per_epoch));
  return values;
}

TEST(LearningRate, AgreesWithTheReference) {
#ifndef KINEFIT_SHARED
  GTEST_SKIP() << "no parity fixtures";
#else
  std::ifstream file(std::string(KINEFIT_SHARED) + "/parity/lr_schedules.json");
  if (!file) GTEST_SKIP() << "no parity fixtures in " << KINEFIT_SHARED;
  const auto fixture = nlohmann::json::parse(file);
  ScheduleConfig multistep = Rule("multistep");
  multistep.milestones = {12, 16};
  ScheduleConfig warmup = Rule("linear", 0, 5);
  warmup.start_factor = 0.1;
  // The fixtures' README names neither this nor the start factor: both follow from the numbers
  // (0.008 * 0.1 = 0.0008 first; the last one is eta_min + (0.008 - eta_min) * 2.7337e-4).
  ScheduleConfig cosine_to_floor = Rule("cosine", 5);
  cosine_to_floor.eta_min = 1e-5;
  const std::map<std::string, std::vector<ScheduleConfig> > cases = {
      {"multistep_12_16", {multistep}},
      {"cosine_100", {Rule("cosine")}},
      {"warmup5_cosine95", {warmup, cosine_to_floor}}};
  for (const auto& [name, rules] : cases) {
    const auto want = fixture.at(name).get<std::vector<double> >();
    const TrainLength length = Length(static_cast<int64_t>(want.size()), 3);
    LearningRate rate(rules, 0.008, length);
    const auto got = PerEpoch(rate, length);
    for (size_t e = 0; e < want.size(); ++e) EXPECT_NEAR(got[e], want[e], 1e-9) << name << " " << e;
  }
#endif
}

TEST(LearningRate, DependsOnTheIterationAlone) {
  ScheduleConfig warmup = Rule("linear", 0, 7);
  warmup.by_epoch = false;
  ScheduleConfig cosine = Rule("cosine", 1, 6);
  cosine.per_iteration = true;
  ScheduleConfig steps = Rule("multistep");
  steps.milestones = {2, 4};
  const TrainLength length = Length(6, 5);
  LearningRate forward({warmup, cosine, steps}, 0.1, length);
  std::vector<double> values;
  for (int64_t i = 0; i < length.total_iterations; ++i) values.push_back(forward.At(i));
  for (const int64_t i : {29, 3, 17, 0, 18}) {
    LearningRate fresh({warmup, cosine, steps}, 0.1, length);
    EXPECT_EQ(fresh.At(i), values[static_cast<size_t>(i)]);
    EXPECT_EQ(forward.At(i), values[static_cast<size_t>(i)]);  // also going back
  }
}

TEST(LearningRate, CosinePerIterationFollowsTheClosedForm) {
  ScheduleConfig cosine = Rule("cosine");
  cosine.per_iteration = true;
  cosine.eta_min = 0.01;
  const TrainLength length = Length(4, 25);
  LearningRate rate({cosine}, 0.5, length);
  for (int64_t i = 0; i < 100; ++i) {
    const double want = 0.01 + 0.49 * (1 + std::cos(M_PI * static_cast<double>(i) / 100)) / 2;
    EXPECT_NEAR(rate.At(i), want, 1e-12) << i;
  }
}

TEST(LearningRate, WarmupByIterationThenMultistepByEpoch) {
  ScheduleConfig warmup = Rule("linear", 0, 5);
  warmup.by_epoch = false;
  warmup.start_factor = 0.2;
  ScheduleConfig steps = Rule("multistep");
  steps.milestones = {2};
  LearningRate rate({warmup, steps}, 1.0, Length(3, 4));
  for (int64_t i = 0; i <= 4; ++i) {
    EXPECT_NEAR(rate.At(i), 0.2 + 0.2 * static_cast<double>(i), 1e-12);
  }
  EXPECT_NEAR(rate.At(7), 1, 1e-12);
  EXPECT_NEAR(rate.At(8), 0.1, 1e-12);
}

TEST(LearningRate, ConstantEndsWithTheFullRate) {
  LearningRate rate({Rule("constant", 0, 3)}, 0.9, Length(5, 1));
  EXPECT_NEAR(rate.At(0), 0.3, 1e-12);
  EXPECT_NEAR(rate.At(1), 0.3, 1e-12);
  EXPECT_NEAR(rate.At(2), 0.9, 1e-12);
  EXPECT_NEAR(rate.At(4), 0.9, 1e-12);
}

TEST(LearningRate, RefusesImpossibleRules) {
  const auto make = [](const ScheduleConfig& rule) { LearningRate rate({rule}, 1, Length(10, 2)); };
  EXPECT_THROW(make(Rule("cosine", 10)), Error);  // begins when training ends
  EXPECT_THROW(make(Rule("staircase")), Error);
  ScheduleConfig zero = Rule("linear", 0, 5);
  zero.start_factor = 0;
  EXPECT_THROW(make(zero), Error);
}

}  // namespace
}  // namespace kinefit
