#include "ops/feature_interaction.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "ops/channels_last.h"
#include "ops/gpu_kernels.h"
#include "ops/norm_gpu.h"

namespace kinefit {
namespace {

double RelativeError(const at::Tensor& got, const at::Tensor& want) {
  EXPECT_EQ(got.sizes(), want.sizes());
  return ((got - want).norm() / want.norm()).item<double>();
}

// Both operations in a row, and the same of ATen's own, in float64: value and every gradient.
void ExpectAgreement(int64_t frames, bool on_gpu) {
  EmulateGpu(on_gpu ? &cuda::EmulatedKernels() : nullptr);
  at::manual_seed(7);
  const at::Tensor value = at::randn({3, 6, 8, 5, 4}, at::kDouble);
  const at::Tensor grad = at::randn({3, 6, 8, 5, 4}, at::kDouble);
  std::vector<std::vector<at::Tensor>> results;
  for (const bool own : {true, false}) {
    const auto leaf = [](const at::Tensor& x) {
      return x.detach().clone().set_requires_grad(true);
    };
    at::manual_seed(8);
    at::Tensor x = leaf(on_gpu ? ChannelsLast(value) : value);
    at::Tensor weight = leaf(at::randn({10, 6, frames, 1, 1}, at::kDouble));
    at::Tensor bias = leaf(at::randn({10}, at::kDouble));
    at::Tensor widen = leaf(at::randn({6 * frames, 10}, at::kDouble) * 0.1);
    at::Tensor tokens;
    if (own) {
      tokens = PooledProjection({x, nullptr}, weight, bias);
    } else {
      const at::Tensor projected = at::conv3d(x, weight, bias, {frames, 1, 1});
      tokens = std::get<0>(projected.flatten(3).max(3)).transpose(1, 2);
    }
    const at::Tensor factor = at::matmul(tokens, widen.t())
                                  .view({3, 8 / frames, 6, frames})
                                  .permute({0, 2, 1, 3})
                                  .reshape({3, 6, 8});
    at::Tensor y;
    if (own) {
      y = ScaledByMoment({x, nullptr}, factor).value;
    } else {
      y = x + x * factor.unsqueeze(3).unsqueeze(4);
    }
    y.backward(grad);
    results.push_back({y.detach(), x.grad(), weight.grad(), bias.grad(), widen.grad()});
  }
  EmulateGpu(nullptr);
  for (size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_LT(RelativeError(results[0][i], results[1][i]), 1e-12) << i;
  }
}

TEST(FeatureInteraction, HasTheValuesAndGradientsOfTheComposition) {
  for (const int64_t frames : {1, 4}) {
    for (const bool on_gpu : {false, true}) ExpectAgreement(frames, on_gpu);
  }
}

TEST(FeatureInteraction, IsRebuiltAndRebuildsItsInput) {
  at::manual_seed(3);
  const at::Tensor kept = at::randn({2, 4, 4, 3, 3}, at::kDouble);
  int64_t rebuilt = 0;
  const at::Tensor x = kept.clone().set_requires_grad(true);
  const Feature feature{x, [&] {
                          ++rebuilt;
                          return kept;
                        }};
  const at::Tensor factor = at::randn({2, 4, 4}, at::kDouble).set_requires_grad(true);
  const Feature scaled = ScaledByMoment(feature, factor);
  ASSERT_TRUE(scaled.rebuild);
  EXPECT_TRUE(at::equal(scaled.rebuild(), scaled.value.detach()));
  scaled.value.sum().backward();
  EXPECT_EQ(rebuilt, 2);  // once for the value, once for the gradient
}

}  // namespace
}  // namespace kinefit
