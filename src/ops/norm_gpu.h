#pragma once

#include <ATen/ATen.h>

#include "ops/batch_norm.h"
#include "ops/stem_input.h"
#include "random/stream.h"

namespace kinefit {

namespace cuda {
struct Kernels;
}

// ops/batch_norm.h and what else of the operations has kernels of ours on a GPU (gpu_kernels.h):
// few fused passes over channels-last memory. Inputs in another layout are copied into it; results
// are channels-last. On the meta device, when it stands for a GPU, the same is allocated and
// nothing computed.

// For tests: from now on tensors of the CPU go the way of a GPU's, with these kernels
// (cuda::EmulatedKernels()). Null ends it.
void EmulateGpu(const cuda::Kernels* kernels);
bool GpuIsEmulated();

BatchNormStatistics GpuStatistics(const at::Tensor& x, const BatchNormTensors& bn, double momentum,
                                  double epsilon, const SumOverRanks* sum);
at::Tensor GpuNormalised(const Normalisable& x, bool relu);
at::Tensor GpuNormalisedSum(const Normalisable& a, const Normalisable& b, at::Tensor into);

// Sums for the gradients of the norms of a sum's two terms: [3, C] double.
using GpuGradientSums = at::Tensor;
// grad + `add` (if defined), masked where NormalisedSum(a, b) is 0, in place.
GpuGradientSums GpuMaskBySum(const at::Tensor& grad, const at::Tensor& add, const Normalisable& a,
                             const Normalisable& b);
// As BatchNormBackward. With `sums` from GpuMaskBySum, x is its term number `term` (0, 1).
BatchNormGradients GpuNormBackward(const at::Tensor& grad, const Normalisable& x, bool relu,
                                   at::Tensor into, const GpuGradientSums& sums = {}, int term = 0);

struct GpuPooled {
  at::Tensor value;   // [N, C, T, H', W']
  at::Tensor places;  // uint8, the maximum's place in its window
};
// As MaxPool3x3 (ops/max_pool.h), and its gradient for an input of `sizes`.
GpuPooled GpuMaxPool(const at::Tensor& x, int64_t stride);
at::Tensor GpuMaxPoolBackward(const at::Tensor& grad, const at::Tensor& places,
                              at::IntArrayRef sizes, int64_t stride);

// Fills `mask` (contiguous, float) as DropoutMask (ops/dropout.h) does, from draw `first` on.
void GpuDropoutMask(const RandomStream& stream, int64_t first, double chance, float kept,
                    const at::Tensor& mask);
// As StemInput (ops/stem_input.h), of bytes, float or double.
at::Tensor GpuStemInput(const at::Tensor& x, at::ScalarType type, const ByteNormalisation& bytes);

}  // namespace kinefit
