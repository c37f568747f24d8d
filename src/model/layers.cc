#include "model/layers.h"

#include <ATen/Context.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "ops/channels_last.h"
#include "ops/dropout.h"
#include "ops/layer_scope.h"
#include "ops/max_pool.h"

namespace kinefit {
namespace {

int64_t Bytes(const at::Tensor& x) {
  return x.numel() * static_cast<int64_t>(x.dtype().itemsize());
}

std::string KernelText(const at::Tensor& weight) {
  return std::to_string(weight.size(2)) + "x" + std::to_string(weight.size(3)) + "x" +
         std::to_string(weight.size(4));
}

}  // namespace

at::Tensor TensorMaker::Parameter(const std::string& name, at::IntArrayRef shape, Initial initial,
                                  double bound) {
  at::Tensor tensor = at::empty(shape, options_);
  if (tensor.dim() == 5 && RunsOnGpu(tensor)) {
    tensor = at::empty(shape, options_.memory_format(kChannelsLast));
  }
  tensor.set_requires_grad(true);
  tensors_->parameters.push_back({name, tensor});
  tensors_->initial.push_back(initial);
  tensors_->bounds.push_back(bound);
  tensors_->all.push_back({name, tensor});
  return tensor;
}

at::Tensor TensorMaker::Buffer(const std::string& name, at::IntArrayRef shape, double value,
                               bool integer) {
  at::Tensor tensor = at::full(shape, value, integer ? options_.dtype(at::kLong) : options_);
  tensors_->buffers.push_back({name, tensor});
  tensors_->all.push_back({name, tensor});
  return tensor;
}

ConvUnit::ConvUnit(TensorMaker& maker, const std::string& name, int64_t in_channels,
                   int64_t out_channels, const ConvShape& shape, After after)
    : relu_(after == After::kBatchNormRelu) {
  const auto& k = shape.kernel;
  layer_.name = name;
  layer_.geometry = {{shape.stride.begin(), shape.stride.end()},
                     {shape.padding.begin(), shape.padding.end()},
                     shape.transposed,
                     {shape.output_padding.begin(), shape.output_padding.end()}};
  layer_.weight =
      shape.transposed
          ? maker.Parameter(name + ".conv.weight", {in_channels, out_channels, k[0], k[1], k[2]},
                            Initial::kUniform)
          : maker.Parameter(name + ".conv.weight", {out_channels, in_channels, k[0], k[1], k[2]},
                            Initial::kKaimingNormal);
  layer_.computed = std::make_shared<ComputedWeight>();
  if (after == After::kNothing) return;
  const Initial gamma = after == After::kZeroBatchNorm ? Initial::kZeros : Initial::kOnes;
  layer_.bn.gamma = maker.Parameter(name + ".bn.weight", {out_channels}, gamma);
  layer_.bn.beta = maker.Parameter(name + ".bn.bias", {out_channels}, Initial::kZeros);
  layer_.bn.running_mean = maker.Buffer(name + ".bn.running_mean", {out_channels}, 0);
  layer_.bn.running_var = maker.Buffer(name + ".bn.running_var", {out_channels}, 1);
  layer_.bn.batches_tracked =
      maker.Buffer(name + ".bn.num_batches_tracked", {}, 0, /*integer=*/true);
}

Feature ConvUnit::Forward(const Feature& x, const ForwardContext& context, bool keep_output) const {
  if (context.trace != nullptr) return {Follow(x.value, context.trace), nullptr};
  if (context.recompute.plain && RunsOnGpu(x.value)) {
    return ConvNormRelu(x, layer_, context.norm(), relu_, /*keep_output=*/true,
                        /*keep_result=*/true);
  }
  if (context.recompute.plain) {
    const LayerScope scope(layer_.name);
    return {Compose(x.value, context), nullptr};
  }
  return ConvNormRelu(x, layer_, context.norm(), relu_, keep_output);
}

at::Tensor ConvUnit::Compose(const at::Tensor& x, const ForwardContext& context) const {
  const ConvolutionGeometry& g = layer_.geometry;
  const at::ScalarType type = ArithmeticType(x, layer_);
  at::Tensor y = at::convolution(x.to(type), layer_.weight.to(type), {}, g.stride, g.padding,
                                 {1, 1, 1}, g.transposed, g.output_padding, /*groups=*/1)
                     .to(x.scalar_type());
  if (!has_norm()) return y;
  const BatchNormMode mode = context.norm();
  if (mode.sum != nullptr) {
    y = BatchNorm(y, layer_, mode);
    return relu_ ? at::relu_(y) : y;
  }
  if (mode.training) {
    at::Tensor tracked = layer_.bn.batches_tracked;
    tracked.add_(1);
  }
  y = at::batch_norm(y, layer_.bn.gamma, layer_.bn.beta, layer_.bn.running_mean,
                     layer_.bn.running_var, mode.training, mode.momentum, mode.epsilon,
                     at::globalContext().userEnabledCuDNN());
  return relu_ ? at::relu_(y) : y;
}

// LibTorch 1.13 has no meta kernels for convolution and batch norm, so shapes are computed here.
at::Tensor ConvUnit::Follow(const at::Tensor& x, LayerTrace* trace) const {
  const ConvolutionGeometry& g = layer_.geometry;
  const at::Tensor& weight = layer_.weight;
  std::vector<int64_t> output = {x.size(0), weight.size(g.transposed ? 1 : 0)};
  for (size_t i = 0; i < 3; ++i) {
    const int64_t in = x.size(static_cast<int64_t>(i) + 2);
    const int64_t k = weight.size(static_cast<int64_t>(i) + 2);
    output.push_back(g.transposed
                         ? (in - 1) * g.stride[i] - 2 * g.padding[i] + k + g.output_padding[i]
                         : (in + 2 * g.padding[i] - k) / g.stride[i] + 1);
  }
  at::Tensor y = at::empty(output, x.options());
  LayerRecord record;
  record.name = layer_.name;
  record.kind = (g.transposed ? "transposed conv " : "conv ") + KernelText(weight) +
                (has_norm() ? " + bn" : "") + (relu_ ? " + relu" : "");
  record.output = output;
  record.parameters =
      weight.numel() + (has_norm() ? layer_.bn.gamma.numel() + layer_.bn.beta.numel() : 0);
  // Every weight meets every position of the smaller of the two grids once.
  const at::Tensor& grid = g.transposed ? x : y;
  record.macs = weight.numel() * grid.numel() / grid.size(1);
  record.activation_bytes = Bytes(y) * (has_norm() ? 2 : 1);
  trace->Record(std::move(record));
  return y;
}

// On the CPU for whole fours of rows: the last ones of other numbers are rounded otherwise, and
// gradients would depend on how a batch is cut into micro-batches.
at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t missing = (4 - x.size(0) % 4) % 4;
  if (missing == 0 || !RunsCpuLoops(x)) return at::linear(x, weight, bias);
  const at::Tensor padded = at::constant_pad_nd(x, {0, 0, 0, missing});
  return at::linear(padded, weight, bias).narrow(0, 0, x.size(0));
}

Classifier::Classifier(TensorMaker& maker, const std::string& name, int64_t in_features,
                       int64_t classes, double dropout)
    : name_(name),
      dropout_(dropout),
      weight_(maker.Parameter(name + ".weight", {classes, in_features}, Initial::kHeadNormal)),
      bias_(maker.Parameter(name + ".bias", {classes}, Initial::kZeros)) {}

at::Tensor Classifier::Forward(const at::Tensor& x, const ForwardContext& context) const {
  const LayerScope scope(name_);
  at::Tensor input = x;
  if (context.training && dropout_ > 0)
    input = x * DropoutMask(x, context.share.first_row, dropout_, context.random);
  const at::Tensor y = Linear(input, weight_, bias_);
  if (context.trace != nullptr) {
    context.trace->Record({name_, "linear", y.sizes().vec(), weight_.numel() + bias_.numel(),
                           x.size(0) * weight_.numel(), Bytes(y)});
  }
  return y;
}

Feature MaxPool(const Feature& x, int64_t stride_t, int64_t stride_s, const std::string& name,
                const ForwardContext& context) {
  const auto pool = [=](const at::Tensor& input) {
    const LayerScope scope(name);
    at::Tensor frames = input;
    if (stride_t > 1) frames = at::slice(input, 2, 0, input.size(2), stride_t);
    return MaxPool3x3(frames, stride_s);
  };
  Feature result = {pool(x.value), nullptr};
  if (x.rebuild) {
    result.rebuild = [pool, rebuild = x.rebuild] {
      const at::NoGradGuard no_grad;
      return pool(rebuild());
    };
  }
  if (context.trace != nullptr) {
    // Forward also keeps the place of each maximum, one byte.
    const at::Tensor& y = result.value;
    context.trace->Record({name, "max pool 1x3x3", y.sizes().vec(), 0, 0, Bytes(y) + y.numel()});
  }
  return result;
}

at::Tensor AveragePool(const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return x.mean({2, 3, 4}, /*keepdim=*/false, type);
}

}  // namespace kinefit
