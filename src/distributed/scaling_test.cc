#include "distributed/scaling.h"

#include <gtest/gtest.h>

namespace kinefit {
namespace {

ScalingModel Model() {
  ScalingModel model;
  model.forward = 0.3;
  model.backward = 0.6;
  model.update = 0.1;
  model.buckets = {{1e9, 0.5}, {1e9, 1}};
  model.bytes_per_second = 10e9;
  return model;
}

TEST(Scaling, OneDeviceWaitsForNobody) {
  const ScalingEstimate one = EstimateScaling(Model(), 1);
  EXPECT_DOUBLE_EQ(one.step, 1);
  EXPECT_DOUBLE_EQ(one.efficiency, 1);
}

// By hand: a bucket takes 2 * 1/2 * 1e9 / 10e9 = 0.1 s on two devices. The first is there at 0.3 of
// the backward pass and done at 0.4, the second starts at its end, so 0.1 s are not hidden.
TEST(Scaling, OnlyWhatTheBackwardPassDoesNotHideCosts) {
  const ScalingEstimate two = EstimateScaling(Model(), 2);
  EXPECT_NEAR(two.exposed, 0.1, 1e-12);
  EXPECT_NEAR(two.step, 1.1, 1e-12);
  EXPECT_NEAR(two.efficiency, 1 / 1.1, 1e-12);
}

TEST(Scaling, ASlowLinkIsBusyFromTheFirstBucketOn) {
  ScalingModel model = Model();
  model.bytes_per_second = 1e9;  // a bucket takes 1 s on two devices
  // Starts at 0.3 of the backward pass, ends 2 s later: 2.3 - 0.6 are not hidden.
  EXPECT_NEAR(EstimateScaling(model, 2).exposed, 1.7, 1e-12);
}

TEST(Scaling, LatencyGrowsWithTheRing) {
  ScalingModel model = Model();
  model.exchanges = 10;
  model.exchange_latency = 1e-3;
  EXPECT_NEAR(EstimateScaling(model, 4).statistics, 10 * 6e-3, 1e-12);
  EXPECT_LT(EstimateScaling(model, 64).efficiency, EstimateScaling(model, 8).efficiency);
}

}  // namespace
}  // namespace kinefit
