#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ops/batch_norm.h"
#include "ops/feature.h"

namespace kinefit {

// What a convolution does besides its weight; in order time, height, width.
struct ConvolutionGeometry {
  std::vector<int64_t> stride = {1, 1, 1};
  std::vector<int64_t> padding = {0, 0, 0};
  bool transposed = false;
  std::vector<int64_t> output_padding = {0, 0, 0};  // transposed only
};

// On a GPU, the weight as the convolution takes it (another dtype, padded channels), made once for
// each state of the weight (convolution_gpu.cc).
struct ComputedWeight {
  at::Tensor value;
  const void* place = nullptr;  // of the weight's memory when it was made
  int64_t version = -1;         // of the weight then
};

// A convolution without bias and the batch norm behind it, if there is one (else bn's tensors are
// undefined). Shares the network's tensors.
struct ConvNorm {
  std::string name;   // of the layer, e.g. "backbone.rgb_path.layer3.0.conv1"
  at::Tensor weight;  // [out, in, kt, kh, kw], transposed [in, out, kt, kh, kw]; float32 or double
  ConvolutionGeometry geometry;
  BatchNormTensors bn;
  std::shared_ptr<ComputedWeight> computed;  // shared by copies; null: made anew at every use
};

struct BatchNormMode {
  bool training = true;  // statistics of the batch, moving the running ones; else the running ones
  double momentum = 0.1;
  double epsilon = 1e-5;
  // The batch is shared with other processes, and its statistics are taken over all of it. Not
  // owned; to outlive the backward pass.
  const SumOverRanks* sum = nullptr;
};

// What the layer's convolution of `x` computes in: LibTorch's CPU kernels cannot do every
// convolution in 16 bits: 1.13 no transposed one, 2.x see IsWrongInBfloat16.
at::ScalarType ArithmeticType(const at::Tensor& x, const ConvNorm& layer);

// Plain convolution of x [N, in, T, H, W] in x's dtype (the weight is cast to it), or of a blocked
// x (ops/blocked.h). Autograd does not see it.
at::Tensor Convolve(const at::Tensor& x, const ConvNorm& layer);

struct ConvolutionGradients {
  at::Tensor input;   // undefined unless asked for
  at::Tensor weight;  // in the weight's dtype
};
// `add_to`, if defined, has the input's gradient added to it and becomes `input`.
ConvolutionGradients ConvolveBackward(const at::Tensor& grad, const at::Tensor& x,
                                      const ConvNorm& layer, bool want_input,
                                      at::Tensor add_to = {});

// Statistics with which the batch norm of `layer` takes y, its convolution's output.
BatchNormStatistics NormStatistics(const at::Tensor& y, const ConvNorm& layer,
                                   const BatchNormMode& mode);

// The batch norm of `layer` alone, as a differentiable operation that keeps y, for compositions
// that cannot use at::batch_norm: where processes share the batch.
at::Tensor BatchNorm(const at::Tensor& y, const ConvNorm& layer, const BatchNormMode& mode);

// bn(convolution(x)), with ReLU behind it if `relu`, as one differentiable operation that keeps the
// convolution's output alone: the normalised and activated tensor is computed from it again in the
// backward pass, for the next layer too (Feature::rebuild). With `keep_output` false not even that
// is kept: the convolution runs again in the backward pass. Values and gradients are those of
// at::convolution, at::batch_norm and at::relu up to rounding; with and without keep_output they
// are the same bits. Without a norm it is the convolution alone. Differentiable once. With
// `keep_result` whoever needs the result has to keep it.
Feature ConvNormRelu(const Feature& x, const ConvNorm& layer, const BatchNormMode& mode, bool relu,
                     bool keep_output, bool keep_result = false);

}  // namespace kinefit
