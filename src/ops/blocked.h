#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

namespace kinefit {

struct ConvNorm;              // ops/conv_norm.h
struct ConvolutionGradients;  // ops/conv_norm.h

// Feature maps in the layout that oneDNN's convolutions compute in: [N, C/B, T, H, W, B], where B
// channels are what the processor takes at once. LibTorch's own CPU convolutions copy every operand
// into that layout and every result out of it; a chain of layers that stays in it spares those
// copies, their time and their memory. float32 on the CPU (on the meta device only shapes and
// allocations). Everything is computed without autograd.

// B on this machine: 16 with AVX-512; 0 on other processors, which stay with LibTorch's layout.
int64_t ChannelBlock();

// Whether `x` is such a tensor: six dimensions where features have five.
inline bool IsBlocked(const at::Tensor& x) { return x.dim() == 6; }
// Whether a chain of convolutions that starts at x [N, C, T, H, W] can be computed so: all channels
// in multiples of B.
bool CanBlock(const at::Tensor& x, const std::vector<const ConvNorm*>& layers);

at::Tensor ToBlocked(const at::Tensor& x);    // of [N, C, T, H, W]
at::Tensor FromBlocked(const at::Tensor& x);  // back again

// As Convolve and ConvolveBackward (ops/conv_norm.h), for blocked tensors; the weight and its
// gradient have their usual layout. What the number of threads takes part in: scratch, and the
// rounding of the weight's gradient.
at::Tensor BlockedConvolve(const at::Tensor& x, const ConvNorm& layer);
ConvolutionGradients BlockedConvolveBackward(const at::Tensor& grad, const at::Tensor& x,
                                             const ConvNorm& layer, bool want_input,
                                             at::Tensor add_to);

}  // namespace kinefit
