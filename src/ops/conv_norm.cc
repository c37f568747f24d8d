#include "ops/conv_norm.h"

#include <memory>
#include <utility>

#include "libtorch/versions.h"
#include "ops/blocked.h"
#include "ops/convolution_gpu.h"
#include "ops/gradient_node.h"
#include "ops/layer_scope.h"

namespace kinefit {

at::ScalarType ArithmeticType(const at::Tensor& x, const ConvNorm& layer) {
  const bool exact = layer.geometry.transposed || IsWrongInBfloat16(x, layer.weight);
  return exact && !RunsOnGpu(x) ? layer.weight.scalar_type() : x.scalar_type();
}

namespace {

// LibTorch leaves convolutions of one small clip to a kernel of its own instead of oneDNN, whose
// rounding switches single ReLUs over: gradients would depend on how a batch is cut into
// micro-batches. So such a clip gets another one, of zeros, beside it. Which clips: use_mkldnn in
// LibTorch's Convolution.cpp; transposed convolutions are oneDNN's only in 2.x.
bool NeedsCompany(const at::Tensor& x, const ConvNorm& layer) {
  constexpr int64_t kSmall = 20480;
  const at::Tensor& w = layer.weight;
  return x.size(0) == 1 && x.scalar_type() == at::kFloat && RunsCpuLoops(x) &&
         (kBringsOneDnn3 || !layer.geometry.transposed) &&
         x.size(1) * x.size(2) * x.size(3) <= kSmall && (w.size(3) <= 3 || w.size(4) <= 3);
}

at::Tensor WithZeros(const at::Tensor& x) { return at::cat({x, at::zeros_like(x)}); }

}  // namespace

at::Tensor Convolve(const at::Tensor& x, const ConvNorm& layer) {
  const at::NoGradGuard no_grad;
  if (IsBlocked(x)) return BlockedConvolve(x, layer);
  if (RunsOnGpu(x)) return GpuConvolve(x, layer);
  if (NeedsCompany(x, layer)) return Convolve(WithZeros(x), layer).narrow(0, 0, 1).clone();
  const ConvolutionGeometry& g = layer.geometry;
  const at::ScalarType type = ArithmeticType(x, layer);
  return at::convolution(x.to(type), layer.weight.to(type), {}, g.stride, g.padding, {1, 1, 1},
                         g.transposed, g.output_padding, /*groups=*/1)
      .to(x.scalar_type());
}

ConvolutionGradients ConvolveBackward(const at::Tensor& grad, const at::Tensor& x,
                                      const ConvNorm& layer, bool want_input, at::Tensor add_to) {
  const at::NoGradGuard no_grad;
  if (IsBlocked(x)) {
    return BlockedConvolveBackward(grad, x, layer, want_input, std::move(add_to));
  }
  if (RunsOnGpu(x)) return GpuConvolveBackward(grad, x, layer, want_input, std::move(add_to));
  if (NeedsCompany(x, layer)) {
    ConvolutionGradients both =
        ConvolveBackward(WithZeros(grad), WithZeros(x), layer, want_input, {});
    if (!want_input) return both;
    const at::Tensor input = both.input.narrow(0, 0, 1);
    both.input = add_to.defined() ? add_to.add_(input) : input.clone();
    return both;
  }
  const ConvolutionGeometry& g = layer.geometry;
  const at::ScalarType type = ArithmeticType(x, layer);
  auto [input, weight, bias] = at::convolution_backward(
      grad.to(type), x.to(type), layer.weight.to(type), {}, g.stride, g.padding, {1, 1, 1},
      g.transposed, g.output_padding, /*groups=*/1, {want_input, true, false});
  if (want_input) input = input.to(x.scalar_type());
  if (want_input && add_to.defined()) input = add_to.add_(input);
  return {std::move(input), weight.to(layer.weight.scalar_type())};
}

BatchNormStatistics NormStatistics(const at::Tensor& y, const ConvNorm& layer,
                                   const BatchNormMode& mode) {
  if (!mode.training) return RunningStatistics(layer.bn, mode.epsilon);
  return BatchStatistics(y, layer.bn, mode.momentum, mode.epsilon, mode.sum);
}

namespace {

// What the backward pass of one unit needs; also lets the next layer rebuild its input.
struct UnitState {
  ConvNorm layer;
  KeptFeature x;
  bool relu = false;
  at::Tensor y;  // undefined: to be computed again
  BatchNormStatistics statistics;

  Normalisable Norm(const at::Tensor& output) const { return {output, &layer.bn, &statistics}; }
};

class UnitNode : public GradientNode {
 public:
  explicit UnitNode(std::shared_ptr<UnitState> state) : state_(std::move(state)) {}

 private:
  Tensors Backward(at::Tensor grad) override {
    const LayerScope scope(state_->layer.name);
    UnitState& s = *state_;
    const at::Tensor x = s.x.Get();
    s.x = KeptFeature();  // what it was taken out of may be larger
    const bool want_input = task_should_compute_output(0);
    if (!s.layer.bn.gamma.defined()) {
      const ConvolutionGradients conv = ConvolveBackward(grad, x, s.layer, want_input);
      return {conv.input, conv.weight};
    }
    if (!s.y.defined()) s.y = Convolve(x, s.layer);
    BatchNormGradients norm = BatchNormBackward(grad, s.Norm(s.y), s.relu, s.y);
    grad = at::Tensor();
    s.y = at::Tensor();
    const ConvolutionGradients conv = ConvolveBackward(norm.input, x, s.layer, want_input);
    return {conv.input, conv.weight, norm.gamma, norm.beta};
  }
  void Release() override { state_->x = KeptFeature(); }

  std::shared_ptr<UnitState> state_;
};

class BatchNormNode : public GradientNode {
 public:
  explicit BatchNormNode(UnitState state) : state_(std::move(state)) {}

 private:
  Tensors Backward(at::Tensor grad) override {
    const LayerScope scope(state_.layer.name);
    const BatchNormGradients norm =
        BatchNormBackward(grad, state_.Norm(state_.y), /*relu=*/false, grad);
    return {norm.input, norm.gamma, norm.beta};
  }
  void Release() override { state_.y = at::Tensor(); }

  UnitState state_;
};

}  // namespace

at::Tensor BatchNorm(const at::Tensor& y, const ConvNorm& layer, const BatchNormMode& mode) {
  const Tensors inputs = {y, layer.bn.gamma, layer.bn.beta};
  UnitState state;
  state.layer = layer;
  at::Tensor value;
  {
    const at::NoGradGuard no_grad;
    state.y = y.detach();
    state.statistics = NormStatistics(state.y, layer, mode);
    value = Normalised(state.Norm(state.y), /*relu=*/false);
  }
  if (NeedsGradient(inputs)) Attach(new BatchNormNode(std::move(state)), inputs, value);
  return value;
}

Feature ConvNormRelu(const Feature& x, const ConvNorm& layer, const BatchNormMode& mode, bool relu,
                     bool keep_output, bool keep_result) {
  const LayerScope scope(layer.name);
  const bool has_norm = layer.bn.gamma.defined();
  auto state = std::make_shared<UnitState>();
  state->layer = layer;
  state->relu = relu;
  Tensors inputs = {x.value, layer.weight};
  if (has_norm) inputs.insert(inputs.end(), {layer.bn.gamma, layer.bn.beta});
  const bool differentiated = NeedsGradient(inputs);
  at::Tensor value;
  {
    const at::NoGradGuard no_grad;
    value = Convolve(x.value, layer);
    if (has_norm) {
      if (differentiated && keep_output) state->y = value;
      state->statistics = NormStatistics(value, layer, mode);
      value = Normalised(state->Norm(value), relu);
    }
  }
  if (!differentiated) return {value, nullptr};
  state->x = KeptFeature(x);
  Attach(new UnitNode(state), inputs, value);
  if (!state->y.defined() || keep_result) return {value, nullptr};
  return {value, [state] {
            const at::NoGradGuard no_grad;
            TORCH_INTERNAL_ASSERT(state->y.defined(), "rebuilt after its backward pass");
            return Normalised(state->Norm(state->y), state->relu);
          }};
}

}  // namespace kinefit
