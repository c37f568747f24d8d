// Batch norm over a batch that two threads share, as processes do: what each gets must be its part
// of what the whole batch gives.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "ops/batch_norm.h"
#include "ops/conv_norm.h"

namespace kinefit {
namespace {

// Adds up what two threads bring.
class TwoThreadSum {
 public:
  void operator()(at::Tensor& values) {
    std::unique_lock<std::mutex> lock(mutex_);
    const int64_t round = round_;
    if (!waiting_.defined()) {
      waiting_ = values;
      arrived_.wait(lock, [&] { return round_ > round; });
      return;
    }
    waiting_.add_(values);
    values.copy_(waiting_);
    waiting_ = at::Tensor();
    ++round_;
    arrived_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  at::Tensor waiting_;
  int64_t round_ = 0;
};

ConvNorm MakeLayer(int64_t in, int64_t out, at::ScalarType type) {
  at::manual_seed(1);
  ConvNorm layer;
  layer.name = "layer";
  layer.geometry.padding = {0, 1, 1};
  layer.weight = (at::randn({out, in, 1, 3, 3}) * 0.3).to(type).set_requires_grad(true);
  layer.bn.gamma = at::rand({out}).add(0.5).to(type).set_requires_grad(true);
  layer.bn.beta = at::randn({out}).to(type).set_requires_grad(true);
  layer.bn.running_mean = at::zeros({out}, type);
  layer.bn.running_var = at::ones({out}, type);
  layer.bn.batches_tracked = at::zeros({}, at::kLong);
  return layer;
}

struct Results {
  at::Tensor value, input, weight, gamma, beta, running_mean, running_var;
};

// `lean`: as one operation, else convolution and BatchNorm.
Results RunOn(const ConvNorm& layer, const at::Tensor& part, const at::Tensor& grad,
              const SumOverRanks* sum, bool lean) {
  const at::Tensor x = part.clone().set_requires_grad(true);
  const BatchNormMode mode{true, 0.1, 1e-5, sum};
  at::Tensor y;
  if (lean) {
    y = ConvNormRelu({x, nullptr}, layer, mode, /*relu=*/true, /*keep_output=*/true).value;
  } else {
    const ConvolutionGeometry& g = layer.geometry;
    y = at::convolution(x, layer.weight, {}, g.stride, g.padding, {1, 1, 1}, false, {0, 0, 0}, 1);
    y = at::relu(sum != nullptr
                     ? BatchNorm(y, layer, mode)
                     : at::batch_norm(y, layer.bn.gamma, layer.bn.beta, layer.bn.running_mean,
                                      layer.bn.running_var, true, 0.1, 1e-5, false));
  }
  (y * grad).sum().backward();
  return {y.detach(),           x.grad(),
          layer.weight.grad(),  layer.bn.gamma.grad(),
          layer.bn.beta.grad(), layer.bn.running_mean,
          layer.bn.running_var};
}

void ExpectClose(const at::Tensor& a, const at::Tensor& b, double tolerance, const char* what) {
  const double scale = std::max(b.abs().max().item<double>(), 1e-3);
  EXPECT_LE((a - b).abs().max().item<double>() / scale, tolerance) << what;
}

// Parts of 3 and 2 samples against the whole.
void Compare(at::ScalarType type, bool lean, double tolerance) {
  at::manual_seed(2);
  const at::Tensor x = (at::randn({5, 4, 2, 6, 6}) * 2 + 3).to(type);
  const at::Tensor grad = at::randn({5, 8, 2, 6, 6}).to(type);
  const Results whole = RunOn(MakeLayer(4, 8, type), x, grad, nullptr, /*lean=*/false);
  TwoThreadSum together;
  const SumOverRanks sum = [&](at::Tensor& values) { together(values); };
  Results parts[2];
  // Made here: the generator is one for all threads.
  const ConvNorm layers[2] = {MakeLayer(4, 8, type), MakeLayer(4, 8, type)};
  std::thread other([&] {
    parts[1] =
        RunOn(layers[1], x.slice(0, 3).contiguous(), grad.slice(0, 3).contiguous(), &sum, lean);
  });
  parts[0] =
      RunOn(layers[0], x.slice(0, 0, 3).contiguous(), grad.slice(0, 0, 3).contiguous(), &sum, lean);
  other.join();
  ExpectClose(at::cat({parts[0].value, parts[1].value}), whole.value, tolerance, "value");
  ExpectClose(at::cat({parts[0].input, parts[1].input}), whole.input, tolerance, "input");
  ExpectClose(parts[0].weight + parts[1].weight, whole.weight, tolerance, "weight");
  ExpectClose(parts[0].gamma + parts[1].gamma, whole.gamma, tolerance, "gamma");
  ExpectClose(parts[0].beta + parts[1].beta, whole.beta, tolerance, "beta");
  for (const Results& part : parts) {
    ExpectClose(part.running_mean, whole.running_mean, tolerance, "running mean");
    ExpectClose(part.running_var, whole.running_var, tolerance, "running variance");
  }
  EXPECT_TRUE(parts[0].running_mean.equal(parts[1].running_mean));
  EXPECT_TRUE(parts[0].running_var.equal(parts[1].running_var));
}

TEST(SharedBatchNorm, LeanOperationIsThatOfTheWholeBatch) {
  Compare(at::kFloat, true, 2e-5);
  Compare(at::kDouble, true, 1e-12);
}

TEST(SharedBatchNorm, CompositionIsThatOfTheWholeBatch) {
  Compare(at::kFloat, false, 2e-5);
  Compare(at::kDouble, false, 1e-12);
}

TEST(SharedBatchNorm, OnOtherDevicesToo) {
  SetCpuLoops(false);
  Compare(at::kFloat, true, 2e-5);
  SetCpuLoops(true);
}

}  // namespace
}  // namespace kinefit
