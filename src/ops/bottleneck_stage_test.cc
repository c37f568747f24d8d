#include "ops/bottleneck_stage.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "ops/max_pool.h"

namespace kinefit {
namespace {

constexpr Keep kKeeps[] = {Keep::kConvolutions, Keep::kSpatial, Keep::kBlocks, Keep::kStage,
                           Keep::kStageBlocks};

ConvNorm MakeLayer(const std::string& name, int64_t in, int64_t out, std::vector<int64_t> kernel,
                   std::vector<int64_t> stride, at::ScalarType type) {
  ConvNorm layer;
  layer.name = name;
  layer.weight = at::randn({out, in, kernel[0], kernel[1], kernel[2]}, at::kDouble)
                     .div_(std::sqrt(static_cast<double>(in * kernel[0] * kernel[1] * kernel[2])))
                     .to(type);
  layer.geometry.stride = std::move(stride);
  for (size_t i = 0; i < 3; ++i) layer.geometry.padding[i] = (kernel[i] - 1) / 2;
  layer.bn.gamma = (at::rand({out}, at::kDouble) + 0.5).to(type);
  layer.bn.beta = at::randn({out}, at::kDouble).mul_(0.3).to(type);
  layer.bn.running_mean = at::randn({out}, at::kDouble).mul_(0.1).to(type);
  layer.bn.running_var = (at::rand({out}, at::kDouble) + 0.5).to(type);
  layer.bn.batches_tracked = at::zeros({}, at::kLong);
  layer.weight.set_requires_grad(true);
  layer.bn.gamma.set_requires_grad(true);
  layer.bn.beta.set_requires_grad(true);
  return layer;
}

struct Widths {
  int64_t in = 5;
  int64_t middle = 4;
  int64_t out = 16;
};
constexpr Widths kWide = {32, 16, 48};  // what oneDNN's layout takes

// Three blocks of which the first has a shortcut with a stride.
std::vector<BottleneckLayers> MakeBlocks(at::ScalarType type, Widths w = {}) {
  at::manual_seed(11);
  std::vector<BottleneckLayers> blocks;
  for (int64_t i = 0; i < 3; ++i) {
    const std::string name = "block" + std::to_string(i);
    const int64_t in = i == 0 ? w.in : w.out;
    const int64_t stride = i == 0 ? 2 : 1;
    BottleneckLayers block{
        MakeLayer(name + ".conv1", in, w.middle, {3, 1, 1}, {1, 1, 1}, type),
        MakeLayer(name + ".conv2", w.middle, w.middle, {1, 3, 3}, {1, stride, stride}, type),
        MakeLayer(name + ".conv3", w.middle, w.out, {1, 1, 1}, {1, 1, 1}, type), std::nullopt};
    if (i == 0) {
      block.shortcut =
          MakeLayer(name + ".shortcut", in, w.out, {1, 1, 1}, {1, stride, stride}, type);
    }
    blocks.push_back(block);
  }
  return blocks;
}

// What the operations are tested against.
at::Tensor Plain(const at::Tensor& x, const ConvNorm& l, const BatchNormMode& mode, bool relu) {
  if (mode.training) at::Tensor(l.bn.batches_tracked).add_(1);
  const at::Tensor y =
      at::convolution(x, l.weight.to(x.scalar_type()), {}, l.geometry.stride, l.geometry.padding,
                      {1, 1, 1}, l.geometry.transposed, l.geometry.output_padding, 1);
  const at::Tensor z = at::batch_norm(y, l.bn.gamma, l.bn.beta, l.bn.running_mean, l.bn.running_var,
                                      mode.training, mode.momentum, mode.epsilon,
                                      /*cudnn_enabled=*/false);
  return relu ? at::relu(z) : z;
}

at::Tensor PlainStage(const at::Tensor& input, const std::vector<BottleneckLayers>& blocks,
                      const BatchNormMode& mode) {
  at::Tensor x = input;
  for (const BottleneckLayers& block : blocks) {
    const at::Tensor y = Plain(Plain(Plain(x, block.conv1, mode, true), block.conv2, mode, true),
                               block.conv3, mode, false);
    x = at::relu(y + (block.shortcut ? Plain(x, *block.shortcut, mode, false) : x));
  }
  return x;
}

std::vector<at::Tensor> TensorsOf(const std::vector<BottleneckLayers>& blocks, bool parameters) {
  std::vector<at::Tensor> all;
  const auto add = [&](const ConvNorm& l) {
    if (parameters) {
      all.insert(all.end(), {l.weight, l.bn.gamma, l.bn.beta});
    } else {
      all.insert(all.end(), {l.bn.running_mean, l.bn.running_var, l.bn.batches_tracked});
    }
  };
  for (const BottleneckLayers& block : blocks) {
    add(block.conv1);
    add(block.conv2);
    add(block.conv3);
    if (block.shortcut) add(*block.shortcut);
  }
  return all;
}

struct Outcome {
  at::Tensor value;
  std::vector<at::Tensor> gradients;  // of the input, then of the parameters
  std::vector<at::Tensor> statistics;
};

using Run = std::function<at::Tensor(const at::Tensor&, const std::vector<BottleneckLayers>&)>;

// Value, gradients and running statistics of two stages' worth of `run`: what comes before and
// behind the stage has gradients too, and the input serves twice.
Outcome Measure(at::ScalarType type, const Run& run, at::ScalarType compute, Widths w = {}) {
  const auto blocks = MakeBlocks(type, w);
  const at::Tensor input =
      at::randn({3, w.in, 4, 6, 6}, at::kDouble).to(type).set_requires_grad(true);
  const at::Tensor weights = at::randn({3, w.out, 4, 3, 3}, at::kDouble).to(type);
  const at::Tensor x = (input * 1.5).to(compute);
  const at::Tensor value = run(x, blocks);
  (value.to(type) * weights).sum().backward();
  Outcome outcome{value.detach(), {input.grad()}, TensorsOf(blocks, false)};
  for (const at::Tensor& parameter : TensorsOf(blocks, true)) {
    outcome.gradients.push_back(parameter.grad());
  }
  return outcome;
}

Run Lean(Keep keep, const BatchNormMode& mode) {
  return [=](const at::Tensor& x, const std::vector<BottleneckLayers>& blocks) {
    return BottleneckStage({x, nullptr}, blocks, mode, keep).value;
  };
}

void ExpectSameBits(const Outcome& got, const Outcome& want) {
  EXPECT_TRUE(at::equal(got.value, want.value));
  ASSERT_EQ(got.gradients.size(), want.gradients.size());
  for (size_t i = 0; i < got.gradients.size(); ++i) {
    ASSERT_TRUE(got.gradients[i].defined()) << i;
    EXPECT_TRUE(at::equal(got.gradients[i], want.gradients[i])) << "gradient " << i;
  }
  for (size_t i = 0; i < got.statistics.size(); ++i) {
    EXPECT_TRUE(at::equal(got.statistics[i], want.statistics[i])) << "statistics " << i;
  }
}

void ExpectClose(const Outcome& got, const Outcome& want, double tolerance) {
  const auto difference = [](const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor x = a.to(at::kDouble);
    const at::Tensor y = b.to(at::kDouble);
    return (x - y).norm().item<double>() / y.norm().item<double>();
  };
  EXPECT_LT(difference(got.value, want.value), tolerance);
  for (size_t i = 0; i < got.gradients.size(); ++i) {
    EXPECT_LT(difference(got.gradients[i], want.gradients[i]), tolerance) << "gradient " << i;
  }
  for (size_t i = 0; i < got.statistics.size(); ++i) {
    if (got.statistics[i].scalar_type() == at::kLong) {
      EXPECT_TRUE(at::equal(got.statistics[i], want.statistics[i]));
    } else {
      EXPECT_LT(difference(got.statistics[i], want.statistics[i]), tolerance) << i;
    }
  }
}

TEST(BottleneckStage, HasTheBitsOfThePlainComposition) {
  for (const bool training : {true, false}) {
    BatchNormMode mode;
    mode.training = training;
    const Outcome plain = Measure(
        at::kFloat, [&](const auto& x, const auto& blocks) { return PlainStage(x, blocks, mode); },
        at::kFloat);
    const Outcome first = Measure(at::kFloat, Lean(kKeeps[0], mode), at::kFloat);
    for (const Keep keep : kKeeps) {
      SCOPED_TRACE(c10::str("keep ", static_cast<int>(keep), " training ", training));
      const Outcome lean = Measure(at::kFloat, Lean(keep, mode), at::kFloat);
      ExpectSameBits(lean, first);
      if (training) {
        ExpectSameBits(lean, plain);
      } else {
        ExpectClose(lean, plain, 1e-6);
      }
    }
  }
}

TEST(BottleneckStage, InOneDnnsLayoutAgreesAndRecomputingChangesNoBit) {
  for (const bool training : {true, false}) {
    BatchNormMode mode;
    mode.training = training;
    const Outcome plain = Measure(
        at::kDouble, [&](const auto& x, const auto& blocks) { return PlainStage(x, blocks, mode); },
        at::kDouble, kWide);
    const Outcome lean = Measure(at::kFloat, Lean(Keep::kConvolutions, mode), at::kFloat, kWide);
    ExpectClose(lean, plain, 1e-5);
    for (const Keep keep : kKeeps) {
      SCOPED_TRACE(c10::str("keep ", static_cast<int>(keep), " training ", training));
      ExpectSameBits(Measure(at::kFloat, Lean(keep, mode), at::kFloat, kWide), lean);
    }
  }
}

TEST(BottleneckStage, BlocksRunAgainByHalves) {
  EXPECT_EQ(RunsAgain(1), (std::vector<int64_t>{1}));
  EXPECT_EQ(RunsAgain(3), (std::vector<int64_t>{3, 2, 1}));
  EXPECT_EQ(RunsAgain(6), (std::vector<int64_t>{4, 3, 2, 3, 2, 1}));
}

TEST(BottleneckStage, AgreesInDoublePrecision) {
  const BatchNormMode mode;
  const Outcome plain = Measure(
      at::kDouble, [&](const auto& x, const auto& blocks) { return PlainStage(x, blocks, mode); },
      at::kDouble);
  for (const Keep keep : kKeeps) {
    ExpectClose(Measure(at::kDouble, Lean(keep, mode), at::kDouble), plain, 1e-12);
  }
}

TEST(BottleneckStage, TheCompositionForOtherDevicesAgrees) {
  const BatchNormMode mode;
  const Outcome loops = Measure(at::kDouble, Lean(Keep::kConvolutions, mode), at::kDouble);
  SetCpuLoops(false);
  const Outcome composed = Measure(at::kDouble, Lean(Keep::kSpatial, mode), at::kDouble);
  const Outcome in16 = Measure(at::kFloat, Lean(Keep::kBlocks, mode), at::kBFloat16);
  SetCpuLoops(true);
  ExpectClose(composed, loops, 1e-12);
  ExpectClose(in16, loops, 0.5);
}

TEST(BottleneckStage, ComputesInBfloat16WithFloatParameters) {
  const BatchNormMode mode;
  const Outcome full = Measure(at::kFloat, Lean(Keep::kConvolutions, mode), at::kFloat);
  const Outcome kept = Measure(at::kFloat, Lean(Keep::kConvolutions, mode), at::kBFloat16);
  EXPECT_EQ(kept.value.scalar_type(), at::kBFloat16);
  for (const at::Tensor& gradient : kept.gradients) {
    EXPECT_EQ(gradient.scalar_type(), at::kFloat);
  }
  ExpectClose(kept, full, 0.5);  // a ReLU here and there decides otherwise
  for (const Keep keep : kKeeps) {
    ExpectSameBits(Measure(at::kFloat, Lean(keep, mode), at::kBFloat16), kept);
  }
}

TEST(BottleneckStage, GradientsAgreeWithFiniteDifferences) {
  const BatchNormMode mode;
  const auto blocks = MakeBlocks(at::kDouble);
  const at::Tensor input = at::randn({3, 5, 4, 6, 6}, at::kDouble).set_requires_grad(true);
  const at::Tensor weights = at::randn({3, 16, 4, 3, 3}, at::kDouble);
  const auto loss = [&] {
    return (BottleneckStage({input, nullptr}, blocks, mode, Keep::kSpatial).value * weights).sum();
  };
  loss().backward();
  std::vector<at::Tensor> tensors = TensorsOf(blocks, true);
  tensors.push_back(input);
  const at::NoGradGuard no_grad;
  for (const at::Tensor& tensor : tensors) {
    const at::Tensor flat = tensor.view(-1);
    const at::Tensor gradient = tensor.grad().view(-1);
    for (int64_t i = 0; i < flat.numel(); i += std::max<int64_t>(flat.numel() / 5, 1)) {
      constexpr double kStep = 1e-6;
      const auto at_offset = [&](double offset) {
        const double kept = flat[i].item<double>();
        flat[i].fill_(kept + offset);
        const double value = loss().item<double>();
        flat[i].fill_(kept);
        return value;
      };
      const double numeric = (at_offset(kStep) - at_offset(-kStep)) / (2 * kStep);
      EXPECT_NEAR(gradient[i].item<double>(), numeric, 1e-5 * std::max(1.0, std::abs(numeric)));
    }
  }
}

TEST(BottleneckStage, OutputCanBeRebuiltUntilItsBackwardPass) {
  const auto blocks = MakeBlocks(at::kFloat);
  const at::Tensor x = at::randn({2, 5, 4, 6, 6}).set_requires_grad(true);
  const Feature out = BottleneckStage({x, nullptr}, blocks, {}, Keep::kConvolutions);
  ASSERT_TRUE(out.rebuild);
  EXPECT_TRUE(at::equal(out.rebuild(), out.value));
  // A stage behind it that does not keep its input, either.
  std::vector<BottleneckLayers> more = {MakeBlocks(at::kFloat)[1]};
  const Feature last = BottleneckStage(out, more, {}, Keep::kConvolutions);
  const at::Tensor expected =
      BottleneckStage({out.value, nullptr}, {MakeBlocks(at::kFloat)[1]}, {}, Keep::kBlocks).value;
  EXPECT_TRUE(at::equal(last.rebuild(), expected));
  const at::Tensor loss = last.value.sum();
  loss.backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_THROW(out.rebuild(), c10::Error);
  EXPECT_THROW(loss.backward(), c10::Error);  // once only
}

TEST(ConvNormRelu, HasTheBitsOfThePlainComposition) {
  for (const bool transposed : {false, true}) {
    for (const bool relu : {false, true}) {
      for (const bool keep : {false, true}) {
        std::vector<std::vector<at::Tensor>> results;
        for (const bool lean : {false, true}) {
          at::manual_seed(5);
          ConvNorm layer = MakeLayer("lateral", 6, 6, {7, 1, 1}, {4, 1, 1}, at::kFloat);
          layer.geometry.transposed = transposed;
          if (transposed) layer.geometry.output_padding = {3, 0, 0};
          const at::Tensor x = at::randn({2, 6, 8, 4, 4}).set_requires_grad(true);
          const at::Tensor y = lean ? ConvNormRelu({x, nullptr}, layer, {}, relu, keep).value
                                    : Plain(x, layer, {}, relu);
          (y * at::randn(y.sizes())).sum().backward();
          results.push_back({y, x.grad(), layer.weight.grad(), layer.bn.gamma.grad(),
                             layer.bn.beta.grad(), layer.bn.running_mean, layer.bn.running_var});
        }
        for (size_t i = 0; i < results[0].size(); ++i) {
          const at::Tensor& plain = results[0][i];
          const at::Tensor& lean = results[1][i];
          EXPECT_TRUE(at::equal(plain, lean)) << i << transposed << relu << keep;
        }
      }
    }
  }
}

TEST(MaxPool3x3, HasTheBitsOfAtens) {
  at::manual_seed(2);
  for (const int64_t stride : {1, 2, 3}) {
    for (const int64_t size : {1, 2, 3, 7, 12, 150}) {
      const at::Tensor x = at::relu(at::randn({2, 3, 4, size, size + 1})).set_requires_grad(true);
      const at::Tensor y = MaxPool3x3(x, stride);
      const at::Tensor z = x.detach().clone().set_requires_grad(true);
      const at::Tensor expected =
          at::max_pool2d(z.view({2, 12, size, size + 1}), {3, 3}, {stride, stride}, {1, 1});
      ASSERT_TRUE(at::equal(y.view(expected.sizes()), expected));
      const at::Tensor weights = at::randn(y.sizes());
      (y * weights).sum().backward();
      (expected * weights.view(expected.sizes())).sum().backward();
      EXPECT_TRUE(at::allclose(x.grad(), z.grad(), 1e-6, 1e-6)) << stride << " " << size;
    }
  }
}

}  // namespace
}  // namespace kinefit
