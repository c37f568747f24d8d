#pragma once

#include <ATen/ATen.h>

#include "ops/conv_norm.h"

namespace kinefit {

// Convolve and ConvolveBackward (ops/conv_norm.h) on a GPU, in channels-last memory, where this
// network's convolutions are two-dimensional ones without a copy: with a kernel of one frame over
// N*T pictures of H x W, with a kernel of one pixel over N pictures of T x H*W, and with a kernel
// of one element a product of matrices. cuDNN's two-dimensional kernels are the better ones. On the
// meta device, when it stands for a GPU, the same is allocated.
//
// x may have more channels than the weight takes: those are ignored (0 in the stems' inputs, see
// ops/stem_input.h).
at::Tensor GpuConvolve(const at::Tensor& x, const ConvNorm& layer);
ConvolutionGradients GpuConvolveBackward(const at::Tensor& grad, const at::Tensor& x,
                                         const ConvNorm& layer, bool want_input, at::Tensor add_to);

}  // namespace kinefit
