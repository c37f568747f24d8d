// Each of our kernels for GPUs, and what goes with them, against the same in float64 on the CPU, by
// ATen: on a GPU where there is one, else the same kernels emulated.

#include "ops/gpu_kernels.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "libtorch/versions.h"
#include "ops/batch_norm.h"
#include "ops/channels_last.h"
#include "ops/conv_norm.h"
#include "ops/dropout.h"
#include "ops/max_pool.h"
#include "ops/norm_gpu.h"
#include "ops/stem_input.h"

namespace kinefit::testing {
namespace {

c10::Device Gpu() {
  return at::hasCUDA() ? c10::Device(c10::DeviceType::CUDA, 0) : c10::Device(c10::DeviceType::CPU);
}

double RelativeError(const at::Tensor& value, const at::Tensor& expected) {
  const at::Tensor a = value.detach().cpu().to(at::kDouble);
  const at::Tensor b = expected.detach().cpu().to(at::kDouble);
  EXPECT_EQ(a.sizes(), b.sizes());
  return ((a - b).norm() / (b.norm() + 1e-300)).item<double>();
}

double Tolerance(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return 1e-11;
    case at::kFloat:
      return 2e-6;
    case at::kHalf:
      return 1e-3;
    default:
      return 6e-3;
  }
}

class GpuKernels : public ::testing::TestWithParam<std::tuple<at::ScalarType, int64_t>> {
 protected:
  void SetUp() override {
    at::globalContext().setAllowTF32CuDNN(false);
    at::globalContext().setAllowTF32CuBLAS(false);
    at::manual_seed(5);
    if (!at::hasCUDA()) EmulateGpu(&cuda::EmulatedKernels());
  }
  void TearDown() override { EmulateGpu(nullptr); }
  at::ScalarType type() const { return std::get<0>(GetParam()); }
  int64_t channels() const { return std::get<1>(GetParam()); }
  at::ScalarType per_channel() const { return type() == at::kDouble ? at::kDouble : at::kFloat; }

  // On the GPU, channels-last, rounded to the type; with its float64 twin.
  struct Twin {
    at::Tensor gpu, exact;
  };
  Twin Feature(double shift = 0) const {
    const at::Tensor x = at::randn({3, channels(), 4, 5, 7}, at::kDouble) * 1.5 + shift;
    at::Tensor gpu = ChannelsLast(x.to(Gpu(), type()));
    return {gpu, gpu.cpu().to(at::kDouble).contiguous()};
  }
  Twin PerChannel(double low, double high) const {
    const at::Tensor x = at::rand({channels()}, at::kDouble) * (high - low) + low;
    at::Tensor gpu = x.to(Gpu(), per_channel());
    return {gpu, gpu.cpu().to(at::kDouble)};
  }
};

// A norm on the GPU, and the same in float64.
struct NormTwin {
  at::Tensor gamma, beta, mean, var;
  BatchNormTensors gpu;
  BatchNormStatistics statistics;
  at::Tensor Exact(const at::Tensor& x, bool training = true) const {
    return at::batch_norm(x, gamma, beta, mean, var, training, 0.1, 1e-5, false);
  }
};

class GpuNorms : public GpuKernels {
 protected:
  NormTwin Norm(const at::Tensor& x) const {
    NormTwin norm;
    const Twin gamma = PerChannel(0.5, 1.5);
    const Twin beta = PerChannel(-0.5, 0.5);
    const Twin mean = PerChannel(-1, 1);
    const Twin var = PerChannel(0.5, 2);
    norm.gamma = gamma.exact.clone().requires_grad_();
    norm.beta = beta.exact.clone().requires_grad_();
    norm.mean = mean.exact.clone();
    norm.var = var.exact.clone();
    norm.gpu = {gamma.gpu, beta.gpu, mean.gpu, var.gpu,
                at::zeros({}, at::TensorOptions().device(Gpu()).dtype(at::kLong))};
    norm.statistics = BatchStatistics(x, norm.gpu, 0.1, 1e-5);
    return norm;
  }
};

TEST_P(GpuNorms, StatisticsAreExactWhateverTheMean) {
  for (const double shift : {0.0, 3.0, 100.0}) {
    const Twin x = Feature(shift);
    NormTwin norm = Norm(x.gpu);
    norm.Exact(x.exact);
    const std::vector<int64_t> dims = {0, 2, 3, 4};
    const double bound = type() == at::kDouble ? 1e-11 : 1e-5;
    EXPECT_LT(RelativeError(norm.statistics.mean, x.exact.mean(dims)), bound);
    const at::Tensor inverse = (x.exact.var(dims, false) + 1e-5).rsqrt();
    EXPECT_LT(RelativeError(norm.statistics.inverse_std, inverse), bound);
    EXPECT_LT(RelativeError(norm.gpu.running_mean, norm.mean), bound);
    EXPECT_LT(RelativeError(norm.gpu.running_var, norm.var), bound);
    EXPECT_EQ(norm.gpu.batches_tracked.item<int64_t>(), 1);
  }
}

TEST_P(GpuNorms, NormalisesAndDifferentiates) {
  for (const bool relu : {false, true}) {
    const Twin x = Feature(0.3);
    const Twin grad = Feature();
    NormTwin norm = Norm(x.gpu);
    at::Tensor exact_x = x.exact.clone().requires_grad_();
    at::Tensor expected = norm.Exact(exact_x);
    if (relu) expected = expected.relu();
    expected.backward(grad.exact);
    const Normalisable input{x.gpu, &norm.gpu, &norm.statistics};
    EXPECT_LT(RelativeError(Normalised(input, relu), expected), Tolerance(type()));
    for (const bool in_place : {false, true}) {
      at::Tensor own = x.gpu.clone();
      const Normalisable copy{own, &norm.gpu, &norm.statistics};
      const BatchNormGradients gradients =
          BatchNormBackward(grad.gpu, copy, relu, in_place ? own : at::Tensor());
      EXPECT_LT(RelativeError(gradients.input, exact_x.grad()), 2 * Tolerance(type()));
      EXPECT_LT(RelativeError(gradients.gamma, norm.gamma.grad()), 10 * Tolerance(type()));
      EXPECT_LT(RelativeError(gradients.beta, norm.beta.grad()), 10 * Tolerance(type()));
      EXPECT_TRUE(IsChannelsLast(gradients.input));
    }
  }
}

TEST_P(GpuNorms, SumsOfTwoTerms) {
  for (const bool projected : {false, true}) {
    for (const bool with_add : {false, true}) {
      const Twin a = Feature(0.3);
      const Twin b = Feature(-0.2);
      const Twin grad = Feature();
      const Twin add = Feature();
      NormTwin norm_a = Norm(a.gpu);
      NormTwin norm_b = Norm(b.gpu);
      at::Tensor exact_a = a.exact.clone().requires_grad_();
      at::Tensor exact_b = b.exact.clone().requires_grad_();
      const at::Tensor expected =
          (norm_a.Exact(exact_a) + (projected ? norm_b.Exact(exact_b) : exact_b)).relu();
      expected.backward(with_add ? (grad.exact + add.exact) : grad.exact);
      const Normalisable term_a{a.gpu, &norm_a.gpu, &norm_a.statistics};
      Normalisable term_b{b.gpu, nullptr, nullptr};
      if (projected) term_b = {b.gpu, &norm_b.gpu, &norm_b.statistics};
      EXPECT_LT(RelativeError(NormalisedSum(term_a, term_b, {}), expected), Tolerance(type()));
      at::Tensor masked = grad.gpu.clone();
      const TermSums sums = MaskBySum(masked, with_add ? add.gpu : at::Tensor(), term_a, term_b);
      const double bound = 3 * Tolerance(type());
      const BatchNormGradients of_a = BatchNormBackward(masked, term_a, false, {}, sums, 0);
      EXPECT_LT(RelativeError(of_a.input, exact_a.grad()), bound);
      EXPECT_LT(RelativeError(of_a.gamma, norm_a.gamma.grad()), 5 * bound);
      EXPECT_LT(RelativeError(of_a.beta, norm_a.beta.grad()), 5 * bound);
      if (!projected) {
        EXPECT_LT(RelativeError(masked, exact_b.grad()), bound);
        continue;
      }
      const BatchNormGradients of_b = BatchNormBackward(masked, term_b, false, {}, sums, 1);
      EXPECT_LT(RelativeError(of_b.input, exact_b.grad()), bound);
      EXPECT_LT(RelativeError(of_b.gamma, norm_b.gamma.grad()), 5 * bound);
    }
  }
}

TEST_P(GpuKernels, PoolsAndUnpools) {
  for (const int64_t stride : {1, 2}) {
    const Twin x = Feature();
    at::Tensor exact = x.exact.clone().requires_grad_();
    const at::Tensor expected = at::max_pool3d(exact, {1, 3, 3}, {1, stride, stride}, {0, 1, 1});
    const at::Tensor gpu = x.gpu.clone().requires_grad_();
    const at::Tensor pooled = MaxPool3x3(gpu, stride);
    EXPECT_EQ(RelativeError(pooled, expected), 0);
    const at::Tensor grad = at::randn(expected.sizes(), at::kDouble).to(type()).to(at::kDouble);
    expected.backward(grad);
    pooled.backward(grad.to(Gpu(), type()));
    EXPECT_LT(RelativeError(gpu.grad(), exact.grad()), Tolerance(type()));
  }
}

TEST_P(GpuKernels, ConvolvesInEveryWay) {
  if (!at::hasCUDA() && type() != at::kFloat && type() != at::kDouble) {
    GTEST_SKIP() << "not every convolution of the CPU computes in 16 bits";
  }
  struct Case {
    std::vector<int64_t> kernel, stride, padding, output_padding;
    bool transposed;
  };
  const std::vector<Case> cases = {{{1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}, false},
                                   {{1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {0, 0, 0}, false},
                                   {{1, 1, 1}, {1, 2, 2}, {0, 0, 0}, {0, 0, 0}, false},
                                   {{1, 7, 7}, {1, 1, 1}, {0, 3, 3}, {0, 0, 0}, false},
                                   {{3, 1, 1}, {1, 1, 1}, {1, 0, 0}, {0, 0, 0}, false},
                                   {{7, 1, 1}, {4, 1, 1}, {3, 0, 0}, {0, 0, 0}, false},
                                   {{7, 1, 1}, {4, 1, 1}, {3, 0, 0}, {3, 0, 0}, true},
                                   {{3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, false},
                                   {{1, 3, 3}, {2, 1, 1}, {0, 1, 1}, {0, 0, 0}, false}};
  for (const Case& c : cases) {
    const Twin x = Feature();
    ConvNorm layer;
    layer.name = "layer";
    layer.geometry = {c.stride, c.padding, c.transposed, c.output_padding};
    layer.computed = std::make_shared<ComputedWeight>();
    const int64_t other = 16;
    std::vector<int64_t> sizes = c.transposed ? std::vector<int64_t>{channels(), other}
                                              : std::vector<int64_t>{other, channels()};
    sizes.insert(sizes.end(), c.kernel.begin(), c.kernel.end());
    const at::Tensor exact_weight =
        (at::randn(sizes, at::kDouble) * 0.1).to(type()).to(at::kDouble).requires_grad_();
    layer.weight = ChannelsLast(exact_weight.detach().to(Gpu(), per_channel()));
    at::Tensor exact_x = x.exact.clone().requires_grad_();
    const at::Tensor expected = at::convolution(exact_x, exact_weight, {}, c.stride, c.padding,
                                                {1, 1, 1}, c.transposed, c.output_padding, 1);
    const at::Tensor grad = at::randn(expected.sizes(), at::kDouble).to(type()).to(at::kDouble);
    expected.backward(grad);
    const std::string what = std::to_string(c.kernel[0]) + "x" + std::to_string(c.kernel[1]) +
                             " stride " + std::to_string(c.stride[0]) + "," +
                             std::to_string(c.stride[1]);
    const at::Tensor y = Convolve(x.gpu, layer);
    EXPECT_TRUE(IsChannelsLast(y));
    const double bound = 2 * Tolerance(type());
    EXPECT_LT(RelativeError(y, expected), bound) << what;
    const ConvolutionGradients gradients =
        ConvolveBackward(ChannelsLast(grad.to(Gpu(), type())), x.gpu, layer, true);
    EXPECT_LT(RelativeError(gradients.input, exact_x.grad()), bound) << what;
    EXPECT_LT(RelativeError(gradients.weight, exact_weight.grad()), bound) << what;
    EXPECT_EQ(gradients.weight.strides(), layer.weight.strides()) << what;
    // The weight that was prepared follows the weight.
    layer.weight.mul_(2);
    EXPECT_LT(RelativeError(Convolve(x.gpu, layer), expected * 2), bound) << what;
  }
}

TEST_P(GpuKernels, StemsReadFloatsAndBytes) {
  const at::Tensor floats = at::randn({2, 3, 4, 6, 5}).to(type()).to(at::kFloat);
  const at::Tensor made = StemInput(floats.to(Gpu()), type());
  EXPECT_TRUE(IsChannelsLast(made));
  EXPECT_EQ(made.size(1) % (type() == at::kFloat ? 4 : type() == at::kDouble ? 1 : 8), 0);
  EXPECT_EQ(RelativeError(made.narrow(1, 0, 3), floats), 0);
  if (made.size(1) > 3) {
    EXPECT_EQ(made.narrow(1, 3, made.size(1) - 3).abs().max().item<double>(), 0);
  }
  const at::Tensor bytes = at::randint(0, 256, {2, 4, 6, 5, 3}, at::kByte);
  const ByteNormalisation norm{{123.675, 116.28, 103.53}, {58.395, 57.12, 57.375}};
  EmulateGpu(nullptr);
  const at::Tensor expected = StemInput(bytes, at::kFloat, norm);
  if (!at::hasCUDA()) EmulateGpu(&cuda::EmulatedKernels());
  EXPECT_LT(RelativeError(StemInput(bytes.to(Gpu()), type(), norm).narrow(1, 0, 3), expected),
            type() == at::kDouble ? 1e-6 : Tolerance(type()));
}

TEST_P(GpuKernels, DrawsTheDropoutMasksOfTheCpu) {
  for (const int64_t first : {0, 3}) {
    RandomStream a(1, "test");
    RandomStream b(1, "test");
    const at::Tensor x = at::empty({5, channels() + 1}, type());
    EmulateGpu(nullptr);
    const at::Tensor expected = DropoutMask(x, first, 0.3, a);
    if (!at::hasCUDA()) EmulateGpu(&cuda::EmulatedKernels());
    EXPECT_TRUE(at::equal(DropoutMask(x.to(Gpu()), first, 0.3, b).cpu(), expected));
  }
}

const auto kCases =
    ::testing::Combine(::testing::Values(at::kDouble, at::kFloat, at::kBFloat16, at::kHalf),
                       ::testing::Values<int64_t>(1, 6, 24, 288));
INSTANTIATE_TEST_SUITE_P(All, GpuNorms, kCases);
INSTANTIATE_TEST_SUITE_P(All, GpuKernels, kCases);

}  // namespace
}  // namespace kinefit::testing
