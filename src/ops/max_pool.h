#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace kinefit {

// Max pool over windows of 3x3 with padding 1 in every frame: x [N, C, T, H, W] -> [N, C, T, H',
// W'], as at::max_pool2d. Keeps one byte per output element, the maximum's place in its window, and
// nothing of x. Differentiable once.
at::Tensor MaxPool3x3(const at::Tensor& x, int64_t stride);

}  // namespace kinefit
