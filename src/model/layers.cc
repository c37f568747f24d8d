#include "model/layers.h"

#include <ATen/Context.h>

#include <cmath>
#include <utility>

namespace kinefit {
namespace {

constexpr double kBatchNormMomentum = 0.1;
constexpr double kBatchNormEpsilon = 1e-5;

int64_t Bytes(const at::Tensor& x) {
  return x.numel() * static_cast<int64_t>(x.dtype().itemsize());
}

std::string KernelText(const ConvShape& shape) {
  const auto& k = shape.kernel;
  return std::to_string(k[0]) + "x" + std::to_string(k[1]) + "x" + std::to_string(k[2]);
}

// Zero with chance `dropout`, else 1 / (1 - dropout), of x's shape. One draw of `random`, whatever
// the shape, seeds the mask; it is drawn on the CPU, so that every device has the same.
at::Tensor DropoutMask(const at::Tensor& x, double dropout, RandomStream& random) {
  const uint64_t seed = random.Bits();
  if (x.is_meta()) return at::empty_like(x);
  RandomStream stream(seed, "dropout");
  at::Tensor mask = at::empty(x.sizes(), at::kFloat);
  const float kept = dropout < 1 ? static_cast<float>(1 / (1 - dropout)) : 0.0F;
  float* values = mask.data_ptr<float>();
  for (int64_t i = 0; i < mask.numel(); ++i) values[i] = stream.Chance(dropout) ? 0.0F : kept;
  return mask.to(x.options());
}

}  // namespace

at::Tensor TensorMaker::Parameter(const std::string& name, at::IntArrayRef shape, Initial initial) {
  at::Tensor tensor = at::empty(shape, options_);
  tensor.set_requires_grad(true);
  tensors_->parameters.push_back({name, tensor});
  tensors_->initial.push_back(initial);
  tensors_->all.push_back({name, tensor});
  return tensor;
}

at::Tensor TensorMaker::Buffer(const std::string& name, at::IntArrayRef shape, double value,
                               bool integer) {
  const at::Tensor tensor = at::full(shape, value, integer ? options_.dtype(at::kLong) : options_);
  tensors_->buffers.push_back({name, tensor});
  tensors_->all.push_back({name, tensor});
  return tensor;
}

BatchNorm::BatchNorm(TensorMaker& maker, const std::string& name, int64_t channels, Initial gamma)
    : weight_(maker.Parameter(name + ".weight", {channels}, gamma)),
      bias_(maker.Parameter(name + ".bias", {channels}, Initial::kZeros)),
      running_mean_(maker.Buffer(name + ".running_mean", {channels}, 0)),
      running_var_(maker.Buffer(name + ".running_var", {channels}, 1)),
      num_batches_tracked_(maker.Buffer(name + ".num_batches_tracked", {}, 0, /*integer=*/true)) {}

at::Tensor BatchNorm::Forward(const at::Tensor& x, const ForwardContext& context) const {
  if (context.training) num_batches_tracked_.add_(1);
  return at::batch_norm(x, weight_, bias_, running_mean_, running_var_, context.training,
                        kBatchNormMomentum, kBatchNormEpsilon,
                        at::globalContext().userEnabledCuDNN());
}

ConvUnit::ConvUnit(TensorMaker& maker, const std::string& name, int64_t in_channels,
                   int64_t out_channels, const ConvShape& shape, After after)
    : name_(name), shape_(shape), relu_(after == After::kBatchNormRelu) {
  const auto& k = shape.kernel;
  weight_ =
      shape.transposed
          ? maker.Parameter(name + ".conv.weight", {in_channels, out_channels, k[0], k[1], k[2]},
                            Initial::kUniform)
          : maker.Parameter(name + ".conv.weight", {out_channels, in_channels, k[0], k[1], k[2]},
                            Initial::kKaimingNormal);
  if (after == After::kNothing) return;
  bn_.emplace(maker, name + ".bn", out_channels,
              after == After::kZeroBatchNorm ? Initial::kZeros : Initial::kOnes);
}

at::Tensor ConvUnit::Forward(const at::Tensor& x, const ForwardContext& context) const {
  if (context.trace != nullptr) return Follow(x, context.trace);
  const at::Tensor none;
  at::Tensor y = at::convolution(x, weight_, none, shape_.stride, shape_.padding, {1, 1, 1},
                                 shape_.transposed, shape_.output_padding, /*groups=*/1);
  if (bn_) y = bn_->Forward(y, context);
  return relu_ ? at::relu_(y) : y;
}

// LibTorch 1.13 has no meta kernels for convolution and batch norm, so shapes are computed here.
at::Tensor ConvUnit::Follow(const at::Tensor& x, LayerTrace* trace) const {
  std::vector<int64_t> output = {x.size(0), weight_.size(shape_.transposed ? 1 : 0)};
  for (size_t i = 0; i < 3; ++i) {
    const int64_t in = x.size(static_cast<int64_t>(i) + 2);
    const int64_t k = shape_.kernel[i];
    output.push_back(shape_.transposed ? (in - 1) * shape_.stride[i] - 2 * shape_.padding[i] + k +
                                             shape_.output_padding[i]
                                       : (in + 2 * shape_.padding[i] - k) / shape_.stride[i] + 1);
  }
  const at::Tensor y = at::empty(output, x.options());
  LayerRecord record;
  record.name = name_;
  record.kind = (shape_.transposed ? "transposed conv " : "conv ") + KernelText(shape_) +
                (bn_ ? " + bn" : "") + (relu_ ? " + relu" : "");
  record.output = output;
  record.parameters = weight_.numel() + (bn_ ? bn_->parameter_count() : 0);
  // Every weight meets every position of the smaller of the two grids once.
  const at::Tensor& grid = shape_.transposed ? x : y;
  record.macs = weight_.numel() * grid.numel() / grid.size(1);
  record.activation_bytes = Bytes(y) * (bn_ ? 2 : 1);
  trace->Record(std::move(record));
  return y;
}

Classifier::Classifier(TensorMaker& maker, const std::string& name, int64_t in_features,
                       int64_t classes, double dropout)
    : name_(name),
      dropout_(dropout),
      weight_(maker.Parameter(name + ".weight", {classes, in_features}, Initial::kHeadNormal)),
      bias_(maker.Parameter(name + ".bias", {classes}, Initial::kZeros)) {}

at::Tensor Classifier::Forward(const at::Tensor& x, const ForwardContext& context) const {
  at::Tensor input = x;
  if (context.training && dropout_ > 0) input = x * DropoutMask(x, dropout_, context.random);
  at::Tensor y = at::linear(input, weight_, bias_);
  if (context.trace != nullptr) {
    context.trace->Record({name_, "linear", y.sizes().vec(), weight_.numel() + bias_.numel(),
                           x.size(0) * weight_.numel(), Bytes(y)});
  }
  return y;
}

at::Tensor MaxPool(const at::Tensor& x, int64_t stride_t, int64_t stride_s, const std::string& name,
                   const ForwardContext& context) {
  // The kernel is one frame deep: frames count as channels of a 2D pool, which is much faster.
  at::Tensor frames = x;
  if (stride_t > 1) frames = at::slice(x, 2, 0, x.size(2), stride_t);
  const int64_t n = x.size(0);
  const int64_t c = x.size(1);
  const int64_t t = frames.size(2);
  const at::Tensor y = at::max_pool2d(frames.reshape({n, c * t, x.size(3), x.size(4)}), {3, 3},
                                      {stride_s, stride_s}, {1, 1});
  at::Tensor result = y.view({n, c, t, y.size(2), y.size(3)});
  if (context.trace != nullptr) {
    // Forward also keeps the place of each maximum, as int64.
    context.trace->Record(
        {name, "max pool 1x3x3", result.sizes().vec(), 0, 0, Bytes(result) + 8 * result.numel()});
  }
  return result;
}

at::Tensor AveragePool(const at::Tensor& x) { return x.mean({2, 3, 4}); }

}  // namespace kinefit
