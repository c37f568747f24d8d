#pragma once

#include <ATen/ATen.h>

#include "ops/batch_norm.h"

namespace kinefit {

// What ops/batch_norm.h does, for blocked tensors (ops/blocked.h): its functions come here when
// they are given one. Sums are taken in an order that does not depend on the number of threads.

BatchNormStatistics BlockedStatistics(const at::Tensor& x, const BatchNormTensors& bn,
                                      double momentum, double epsilon, const SumOverRanks* sum);
at::Tensor BlockedNormalised(const Normalisable& x, bool relu);
at::Tensor BlockedNormalisedSum(const Normalisable& a, const Normalisable& b, at::Tensor into);
void BlockedMaskBySum(at::Tensor& grad, const Normalisable& a, const Normalisable& b);
BatchNormGradients BlockedNormBackward(const at::Tensor& grad, const Normalisable& x, bool relu,
                                       at::Tensor into);

}  // namespace kinefit
