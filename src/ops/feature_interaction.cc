#include "ops/feature_interaction.h"

#include <tuple>
#include <utility>

#include "ops/batch_norm.h"
#include "ops/gradient_node.h"

namespace kinefit {
namespace {

// [N, C, T, H, W] -> [N, T / k, H * W, C * k], the order of a weight's rows (C, k). A copy.
at::Tensor Pixels(const at::Tensor& x, int64_t k) {
  const int64_t n = x.size(0);
  const int64_t c = x.size(1);
  const int64_t pixels = x.size(3) * x.size(4);
  return x.reshape({n, c, x.size(2) / k, k, pixels})
      .permute({0, 2, 4, 1, 3})
      .reshape({n, x.size(2) / k, pixels, c * k});
}

at::Tensor InTypeOf(const at::Tensor& value, const at::Tensor& like) {
  return value.scalar_type() == like.scalar_type() ? value : value.to(like.scalar_type());
}

struct Projected {
  at::Tensor highest;  // [N, T / k, hidden]
  at::Tensor places;   // of the pixels, int64
};

// Samples handled at once: what is projected is as large as a feature map, and kernels on a GPU are
// many if it is one.
int64_t AtOnce(const at::Tensor& x) { return RunsOnGpu(x) ? x.size(0) : 1; }

Projected Project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t k = weight.size(2);
  const at::Tensor matrix = InTypeOf(weight.reshape({weight.size(0), -1}), x).t();
  const std::vector<int64_t> sizes = {x.size(0), x.size(2) / k, weight.size(0)};
  Projected result{at::empty(sizes, bias.options()),
                   at::empty(sizes, bias.options().dtype(at::kLong))};
  const int64_t at_once = AtOnce(x);
  for (int64_t n = 0; n < x.size(0); n += at_once) {
    const at::Tensor values = at::matmul(Pixels(x.narrow(0, n, at_once), k), matrix);
    const auto [highest, places] = values.max(2);
    result.highest.narrow(0, n, at_once).copy_(highest);
    result.places.narrow(0, n, at_once).copy_(places);
  }
  result.highest.add_(bias);
  return result;
}

class PooledProjectionNode : public GradientNode {
 public:
  PooledProjectionNode(KeptFeature x, at::Tensor weight, at::Tensor places)
      : x_(std::move(x)), weight_(std::move(weight)), places_(std::move(places)) {}

 private:
  // `grad` [N, T / k, hidden] goes to the pixels of the maxima alone.
  Tensors Backward(at::Tensor grad) override {
    const at::Tensor x = x_.Get();
    x_ = KeptFeature();
    const int64_t k = weight_.size(2);
    const int64_t hidden = weight_.size(0);
    const at::Tensor matrix = weight_.reshape({hidden, -1});
    const bool want_input = task_should_compute_output(0);
    at::Tensor weight_grad = at::zeros_like(matrix);
    at::Tensor input_grad;
    if (want_input) input_grad = at::empty_like(x);
    const int64_t at_once = AtOnce(x);
    for (int64_t n = 0; n < x.size(0); n += at_once) {
      const at::Tensor pixels = Pixels(x.narrow(0, n, at_once), k);  // [n, T / k, HW, C * k]
      const at::Tensor places = places_.narrow(0, n, at_once);       // [n, T / k, hidden]
      const at::Tensor own = grad.narrow(0, n, at_once);
      // What each maximum was made of: [n, T / k, hidden, C * k].
      const at::Tensor rows = at::gather(
          pixels, 2, places.unsqueeze(3).expand({at_once, pixels.size(1), hidden, pixels.size(3)}));
      weight_grad.add_((InTypeOf(rows, own) * own.unsqueeze(3)).sum(std::vector<int64_t>{0, 1}));
      if (!want_input) continue;
      // No two maxima of one channel share a place: a sum of products in a fixed order.
      const at::Tensor spread =
          at::zeros({at_once, pixels.size(1), hidden, pixels.size(2)}, own.options())
              .scatter_(3, places.unsqueeze(3), own.unsqueeze(3));
      const at::Tensor of_pixels = at::matmul(spread.transpose(2, 3), matrix);
      input_grad.narrow(0, n, at_once)
          .copy_(of_pixels.view({at_once, pixels.size(1), pixels.size(2), x.size(1), k})
                     .permute({0, 3, 1, 4, 2})
                     .reshape({at_once, x.size(1), x.size(2), x.size(3), x.size(4)}));
    }
    return {input_grad, weight_grad.view(weight_.sizes()), grad.sum(std::vector<int64_t>{0, 1})};
  }
  void Release() override { x_ = KeptFeature(); }

  KeptFeature x_;
  at::Tensor weight_, places_;
};

at::Tensor Scaled(const at::Tensor& x, const at::Tensor& factor) {
  return x * InTypeOf(factor + 1, x).unsqueeze(3).unsqueeze(4);
}

class ScaleNode : public GradientNode {
 public:
  ScaleNode(KeptFeature x, at::Tensor factor) : x_(std::move(x)), factor_(std::move(factor)) {}

 private:
  Tensors Backward(at::Tensor grad) override {
    const at::Tensor x = x_.Get();
    x_ = KeptFeature();
    at::Tensor factor_grad;
    if (task_should_compute_output(1)) {
      factor_grad = at::sum(grad * x, std::vector<int64_t>{3, 4}, false, factor_.scalar_type());
    }
    grad.mul_(InTypeOf(factor_ + 1, grad).unsqueeze(3).unsqueeze(4));
    return {grad, factor_grad};
  }
  void Release() override { x_ = KeptFeature(); }

  KeptFeature x_;
  at::Tensor factor_;
};

}  // namespace

at::Tensor PooledProjection(const Feature& x, const at::Tensor& weight, const at::Tensor& bias) {
  TORCH_CHECK(x.value.dim() == 5 && x.value.size(2) % weight.size(2) == 0,
              "PooledProjection takes whole moments of frames");
  const Tensors inputs = {x.value, weight, bias};
  Projected projected;
  {
    const at::NoGradGuard no_grad;
    projected = Project(x.value, weight.detach(), bias.detach());
  }
  at::Tensor result = projected.highest;
  if (NeedsGradient(inputs)) {
    Attach(new PooledProjectionNode(KeptFeature(x), weight.detach(), projected.places), inputs,
           result);
  }
  return result;
}

Feature ScaledByMoment(const Feature& x, const at::Tensor& factor) {
  const Tensors inputs = {x.value, factor};
  const at::Tensor own = factor.detach();
  at::Tensor result;
  {
    const at::NoGradGuard no_grad;
    result = Scaled(x.value, own);
  }
  if (!NeedsGradient(inputs)) return {result, nullptr};
  Attach(new ScaleNode(KeptFeature(x), own), inputs, result);
  if (!x.rebuild) return {result, nullptr};
  return {result, [rebuild = x.rebuild, own] {
            const at::NoGradGuard no_grad;
            return Scaled(rebuild(), own);
          }};
}

}  // namespace kinefit
