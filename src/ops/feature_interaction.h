#pragma once

#include <ATen/ATen.h>

#include "ops/feature.h"

namespace kinefit {

// A convolution with kernel and stride of `weight`'s frames in time and one pixel in space, with
// bias, then the maximum over all pixels of each of its moments: x [N, C, T, H, W] ->
// [N, T / k, hidden] for a weight [hidden, C, k, 1, 1], in the weight's dtype. Keeps the places of
// the maxima and, unless it can be rebuilt, x; nothing of what the convolution makes.
// Differentiable once.
at::Tensor PooledProjection(const Feature& x, const at::Tensor& weight, const at::Tensor& bias);

// x + factor * x for a factor [N, C, T] that all pixels of a moment share. The result can be
// rebuilt where x can. Keeps x, unless it can be rebuilt, and the factor. Differentiable once.
Feature ScaledByMoment(const Feature& x, const at::Tensor& factor);

}  // namespace kinefit
