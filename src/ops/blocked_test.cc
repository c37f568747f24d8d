#include "ops/blocked.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "ops/batch_norm.h"
#include "ops/conv_norm.h"

namespace kinefit {
namespace {

class Blocked : public ::testing::Test {
 protected:
  void SetUp() override {
    if (ChannelBlock() == 0) GTEST_SKIP() << "SKIPPED: this processor has no AVX-512";
    at::manual_seed(3);
  }
};

void ExpectClose(const at::Tensor& got, const at::Tensor& want, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(got.sizes(), want.sizes()) << what;
  const double difference = (got.to(at::kDouble) - want.to(at::kDouble)).abs().max().item<double>();
  EXPECT_LE(difference, tolerance * want.abs().max().item<double>()) << what;
}

ConvNorm Layer(int64_t in, int64_t out, std::vector<int64_t> kernel, std::vector<int64_t> stride) {
  ConvNorm layer;
  layer.name = c10::str("kernel ", at::IntArrayRef(kernel), " stride ", at::IntArrayRef(stride));
  layer.weight = at::randn({out, in, kernel[0], kernel[1], kernel[2]});
  layer.geometry.stride = std::move(stride);
  for (size_t i = 0; i < 3; ++i) layer.geometry.padding[i] = (kernel[i] - 1) / 2;
  return layer;
}

TEST_F(Blocked, GoesThereAndBack) {
  const at::Tensor x = at::randn({2, 32, 3, 5, 7});
  const at::Tensor blocked = ToBlocked(x);
  EXPECT_TRUE(IsBlocked(blocked));
  EXPECT_TRUE(at::equal(FromBlocked(blocked), x));
  // Channel c of position p stands in block c / B at lane c % B.
  const int64_t lanes = ChannelBlock();
  EXPECT_TRUE(at::equal(blocked.select(1, 20 / lanes).select(4, 20 % lanes), x.select(1, 20)));
}

TEST_F(Blocked, ConvolutionsAreAtens) {
  const std::vector<ConvNorm> layers = {
      Layer(32, 16, {1, 1, 1}, {1, 1, 1}), Layer(16, 32, {3, 1, 1}, {1, 1, 1}),
      Layer(32, 32, {1, 3, 3}, {1, 2, 2}), Layer(16, 48, {1, 1, 1}, {1, 2, 2}),
      Layer(16, 16, {3, 3, 3}, {2, 1, 1}), Layer(16, 32, {1, 1, 1}, {2, 3, 1})};
  for (const ConvNorm& layer : layers) {
    const at::Tensor x = at::randn({2, layer.weight.size(1), 4, 9, 7});
    const at::Tensor want = Convolve(x.to(at::kDouble), [&] {
      ConvNorm in_double = layer;
      in_double.weight = layer.weight.to(at::kDouble);
      return in_double;
    }());
    const at::Tensor got = Convolve(ToBlocked(x), layer);
    ExpectClose(FromBlocked(got), want, 1e-6, layer.name);
    const at::Tensor grad = at::randn(want.sizes());
    const ConvolutionGradients plain = ConvolveBackward(grad, x, layer, true);
    const at::Tensor blocked_grad = ToBlocked(grad);
    const ConvolutionGradients ours = ConvolveBackward(blocked_grad, ToBlocked(x), layer, true);
    ExpectClose(FromBlocked(ours.input), plain.input, 2e-6, layer.name);
    ExpectClose(ours.weight, plain.weight, 2e-6, layer.name);
    const at::Tensor before = at::randn(x.sizes());
    const ConvolutionGradients added =
        ConvolveBackward(blocked_grad, ToBlocked(x), layer, true, ToBlocked(before));
    ExpectClose(FromBlocked(added.input), plain.input + before, 2e-6, layer.name);
    EXPECT_FALSE(ConvolveBackward(blocked_grad, ToBlocked(x), layer, false).input.defined());
  }
}

TEST_F(Blocked, BatchNormIsThatOfPlainTensors) {
  const int64_t channels = 48;
  const at::Tensor x = at::randn({3, channels, 4, 5, 7}) * 2 + 30;  // a mean far from zero
  const at::Tensor other = at::randn(x.sizes());
  const at::Tensor grad = at::randn(x.sizes());
  const BatchNormTensors start{at::randn({channels}), at::randn({channels}), at::randn({channels}),
                               at::rand({channels}) + 0.5};
  struct Results {
    std::vector<at::Tensor> maps, per_channel;
  };
  const auto run = [&](bool blocked, bool of_batch) {
    const auto in = [&](const at::Tensor& t) { return blocked ? ToBlocked(t) : t.clone(); };
    const BatchNormTensors bn{start.gamma, start.beta, start.running_mean.clone(),
                              start.running_var.clone()};
    const at::Tensor y = in(x);
    const BatchNormStatistics statistics =
        of_batch ? BatchStatistics(y, bn, 0.1, 1e-5) : RunningStatistics(bn, 1e-5);
    const Normalisable norm{y, &bn, &statistics};
    const Normalisable plain{in(other), nullptr, nullptr};
    at::Tensor masked = in(grad);
    MaskBySum(masked, {}, norm, plain);
    const BatchNormGradients gradients = BatchNormBackward(in(grad), norm, true, {});
    Results r{{Normalised(norm, false), Normalised(norm, true), NormalisedSum(norm, plain, {}),
               masked, gradients.input},
              {statistics.mean, statistics.inverse_std, bn.running_mean, bn.running_var,
               gradients.gamma, gradients.beta}};
    if (blocked) {
      for (at::Tensor& map : r.maps) map = FromBlocked(map);
    }
    return r;
  };
  for (const bool of_batch : {true, false}) {
    const Results want = run(false, of_batch);
    const Results got = run(true, of_batch);
    for (size_t i = 0; i < want.maps.size(); ++i) {
      ExpectClose(got.maps[i], want.maps[i], 2e-5, c10::str("map ", i));
    }
    for (size_t i = 0; i < want.per_channel.size(); ++i) {
      ExpectClose(got.per_channel[i], want.per_channel[i], 2e-5, c10::str("per channel ", i));
    }
  }
}

TEST_F(Blocked, NormsDoNotDependOnTheNumberOfThreads) {
  const at::Tensor x = ToBlocked(at::randn({3, 32, 4, 9, 7}));
  const at::Tensor grad = ToBlocked(at::randn({3, 32, 4, 9, 7}));
  const BatchNormTensors bn{at::randn({32}), at::randn({32}), at::zeros({32}), at::ones({32})};
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    const BatchNormStatistics statistics = BatchStatistics(x, bn, 0.1, 1e-5);
    const BatchNormGradients g = BatchNormBackward(grad, {x, &bn, &statistics}, true, {});
    return std::vector<at::Tensor>{statistics.mean, statistics.inverse_std, g.input, g.gamma,
                                   g.beta};
  };
  const int before = at::get_num_threads();
  const auto one = run(1);
  const auto three = run(3);
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], three[i])) << i;
}

TEST_F(Blocked, NotANumberGetsThrough) {
  at::Tensor x = at::randn({1, 16, 2, 3, 3});
  x[0][5][1][2][2] = std::numeric_limits<float>::quiet_NaN();
  const BatchNormTensors bn{at::ones({16}), at::zeros({16}), at::zeros({16}), at::ones({16})};
  const at::Tensor y = ToBlocked(x);
  const BatchNormStatistics statistics = BatchStatistics(y, bn, 0.1, 1e-5);
  EXPECT_TRUE(at::isnan(Normalised({y, &bn, &statistics}, true)).any().item<bool>());
}

TEST_F(Blocked, OnlyWhatHasWholeBlocksOfFloatsIsTaken) {
  const ConvNorm wide = Layer(32, 16, {1, 1, 1}, {1, 1, 1});
  const ConvNorm odd = Layer(32, 20, {1, 1, 1}, {1, 1, 1});
  const at::Tensor x = at::randn({1, 32, 2, 3, 3});
  EXPECT_TRUE(CanBlock(x, {&wide}));
  EXPECT_FALSE(CanBlock(x, {&wide, &odd}));
  EXPECT_FALSE(CanBlock(x.to(at::kDouble), {&wide}));
  EXPECT_FALSE(CanBlock(x.to(at::kBFloat16), {&wide}));
  EXPECT_FALSE(CanBlock(at::randn({1, 3, 2, 3, 3}), {&wide}));
}

}  // namespace
}  // namespace kinefit
