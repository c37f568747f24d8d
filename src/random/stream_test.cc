#include "random/stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace kinefit {
namespace {

TEST(RandomStream, SameNameSameDraws) {
  RandomStream one(7, "augment", 3, 11);
  RandomStream two(7, "augment", 3, 11);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(one.Bits(), two.Bits());
}

TEST(RandomStream, EveryPartOfTheNameMatters) {
  const uint32_t base = RandomStream(7, "augment", 3, 11).Bits();
  EXPECT_NE(base, RandomStream(8, "augment", 3, 11).Bits());
  EXPECT_NE(base, RandomStream(7, "sampler", 3, 11).Bits());
  EXPECT_NE(base, RandomStream(7, "augment", 4, 11).Bits());
  EXPECT_NE(base, RandomStream(7, "augment", 3, 12).Bits());
  EXPECT_NE(RandomStream(7, "x", 1, 2).Bits(), RandomStream(7, "x", 2, 1).Bits());
}

// The bits are part of the checkpoint format: a run resumed by a later version must draw the same.
TEST(RandomStream, DrawsNeverChangeBetweenVersions) {
  RandomStream stream(1, "pinned", 2, 3);
  const std::vector<uint32_t> draws = {stream.Bits(), stream.Bits(), stream.Bits(), stream.Bits(),
                                       stream.Bits()};
  const std::vector<uint32_t> pinned = {3076112396U, 3236425761U, 966730195U, 49676542U,
                                        634542118U};
  EXPECT_EQ(draws, pinned);
}

TEST(RandomStream, UniformAndNormalHaveTheRightMoments) {
  RandomStream stream(1, "moments");
  double sum = 0, normal = 0, square = 0;
  const int n = 200000;
  for (int i = 0; i < n; ++i) {
    const double u = stream.Uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    const double z = stream.Normal();
    normal += z;
    square += z * z;
  }
  EXPECT_NEAR(sum / n, 0.5, 0.004);
  EXPECT_NEAR(normal / n, 0.0, 0.012);
  EXPECT_NEAR(square / n, 1.0, 0.02);
}

TEST(RandomStream, PermutationHoldsEachOnce) {
  std::vector<int64_t> order = RandomStream(5, "p").Permutation(1000);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(RandomStream, IntegerCoversItsRange) {
  RandomStream stream(5, "i");
  std::vector<int> counts(7);
  for (int i = 0; i < 7000; ++i) ++counts[static_cast<size_t>(stream.Integer(-3, 4) + 3)];
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);
}

}  // namespace
}  // namespace kinefit
