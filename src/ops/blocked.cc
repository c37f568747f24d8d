#include "ops/blocked.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "onednn/blocked_convolution.h"
#include "ops/batch_norm.h"
#include "ops/conv_norm.h"

namespace kinefit {
namespace {

using Sizes = std::vector<int64_t>;

// [N, C, T, H, W] of a blocked tensor.
Sizes FeatureSizes(const at::Tensor& x) {
  return {x.size(0), x.size(1) * x.size(5), x.size(2), x.size(3), x.size(4)};
}
Sizes BlockedSizes(const Sizes& sizes) {
  const int64_t block = ChannelBlock();
  return {sizes[0], sizes[1] / block, sizes[2], sizes[3], sizes[4], block};
}

BlockedConvolutionShape ShapeOf(const Sizes& input, const ConvNorm& layer) {
  BlockedConvolutionShape s{input,
                            layer.weight.sizes().vec(),
                            input,
                            layer.geometry.stride,
                            layer.geometry.padding,
                            at::get_num_threads()};
  s.output[1] = s.weight[0];
  for (size_t i = 0; i < 3; ++i) {
    s.output[2 + i] = (input[2 + i] + 2 * s.padding[i] - s.weight[2 + i]) / s.stride[i] + 1;
  }
  return s;
}

at::Tensor Bytes(int64_t count, const at::Tensor& like) {
  return at::empty({count}, like.options().dtype(at::kByte));
}

float* Floats(const at::Tensor& x) { return x.data_ptr<float>(); }

// The weight as `convolution` wants it.
at::Tensor WeightsFor(const BlockedConvolution& convolution, const at::Tensor& weight) {
  if (convolution.weight_bytes() == 0) return weight;
  const at::Tensor result = Bytes(convolution.weight_bytes(), weight);
  if (!weight.is_meta()) convolution.CopyWeightIn(Floats(weight), result.data_ptr());
  return result;
}

// With its scratch, which is all that a tensor on the meta device takes.
void Run(const BlockedConvolution& convolution, const at::Tensor& input, const at::Tensor& weight,
         const at::Tensor& output) {
  const at::Tensor scratch = Bytes(convolution.scratch_bytes(), input);
  if (input.is_meta()) return;
  convolution.Run(Floats(input), weight.data_ptr(), Floats(output), scratch.data_ptr());
}

at::Tensor InputGradient(const at::Tensor& grad, const BlockedConvolutionShape& shape,
                         const at::Tensor& weight) {
  const auto convolution = BlockedConvolutionFor(ConvolutionPass::kBackwardInput, shape);
  const at::Tensor result = at::empty(BlockedSizes(shape.input), grad.options());
  Run(*convolution, result, WeightsFor(*convolution, weight), grad);
  return result;
}

at::Tensor WeightGradient(const at::Tensor& grad, const at::Tensor& x,
                          const BlockedConvolutionShape& shape) {
  const auto convolution = BlockedConvolutionFor(ConvolutionPass::kBackwardWeight, shape);
  const bool direct = convolution->weight_bytes() == 0;
  at::Tensor result =
      direct ? at::empty(shape.weight, x.options()) : Bytes(convolution->weight_bytes(), x);
  Run(*convolution, x, result, grad);
  if (direct) return result;
  const at::Tensor usual = at::empty(shape.weight, x.options());
  if (!x.is_meta()) convolution->CopyWeightOut(result.data_ptr(), Floats(usual));
  return usual;
}

// A 1x1x1 convolution with a stride sees every stride-th position only; oneDNN has no fast gradient
// for it where maps are large, so it runs as one without a stride on those positions.
bool SeesSomePositions(const ConvNorm& layer) {
  const auto all = [](c10::IntArrayRef values, int64_t wanted) {
    return std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == wanted; });
  };
  return all(layer.weight.sizes().slice(2), 1) && all(layer.geometry.padding, 0) &&
         !all(layer.geometry.stride, 1);
}

// View of the positions of blocked x that such a convolution sees.
at::Tensor SeenBy(const ConvNorm& layer, at::Tensor x) {
  for (size_t i = 0; i < 3; ++i) {
    const auto dim = static_cast<int64_t>(i) + 2;
    x = x.slice(dim, 0, x.size(dim), layer.geometry.stride[i]);
  }
  return x;
}

ConvNorm WithoutStride(ConvNorm layer) {
  layer.geometry.stride = {1, 1, 1};
  return layer;
}

}  // namespace

int64_t ChannelBlock() { return BlockedChannels(); }

bool CanBlock(const at::Tensor& x, const std::vector<const ConvNorm*>& layers) {
  const int64_t block = ChannelBlock();
  if (block == 0 || x.scalar_type() != at::kFloat || !RunsCpuLoops(x)) return false;
  if (x.numel() == 0 || x.size(1) % block != 0) return false;
  for (const ConvNorm* layer : layers) {
    const at::Tensor& w = layer->weight;
    if (layer->geometry.transposed || w.scalar_type() != at::kFloat || !w.is_contiguous() ||
        w.size(0) % block != 0 || w.size(1) % block != 0) {
      return false;
    }
  }
  return true;
}

at::Tensor ToBlocked(const at::Tensor& x) {
  const Sizes sizes = x.sizes().vec();
  const at::Tensor dense = x.contiguous();
  const at::Tensor result = at::empty(BlockedSizes(sizes), x.options());
  if (!x.is_meta()) CopyToBlocked(sizes, Floats(dense), Floats(result));
  return result;
}

at::Tensor FromBlocked(const at::Tensor& x) {
  const Sizes sizes = FeatureSizes(x);
  const at::Tensor result = at::empty(sizes, x.options());
  if (!x.is_meta()) CopyFromBlocked(sizes, Floats(x), Floats(result));
  return result;
}

at::Tensor BlockedConvolve(const at::Tensor& x, const ConvNorm& layer) {
  if (SeesSomePositions(layer)) {
    return BlockedConvolve(SeenBy(layer, x).contiguous(), WithoutStride(layer));
  }
  const BlockedConvolutionShape shape = ShapeOf(FeatureSizes(x), layer);
  const auto convolution = BlockedConvolutionFor(ConvolutionPass::kForward, shape);
  const at::Tensor result = at::empty(BlockedSizes(shape.output), x.options());
  Run(*convolution, x, WeightsFor(*convolution, layer.weight), result);
  return result;
}

ConvolutionGradients BlockedConvolveBackward(const at::Tensor& grad, const at::Tensor& x,
                                             const ConvNorm& layer, bool want_input,
                                             at::Tensor add_to) {
  if (SeesSomePositions(layer)) {
    ConvolutionGradients result = BlockedConvolveBackward(grad, SeenBy(layer, x).contiguous(),
                                                          WithoutStride(layer), want_input, {});
    if (!want_input) return result;
    if (!add_to.defined()) add_to = at::zeros(x.sizes(), x.options());
    SeenBy(layer, add_to).add_(result.input);
    result.input = std::move(add_to);
    return result;
  }
  const BlockedConvolutionShape shape = ShapeOf(FeatureSizes(x), layer);
  ConvolutionGradients result;
  result.weight = WeightGradient(grad, x, shape);
  if (!want_input) return result;
  result.input = InputGradient(grad, shape, layer.weight);
  if (add_to.defined()) result.input = add_to.add_(result.input);
  return result;
}

}  // namespace kinefit
