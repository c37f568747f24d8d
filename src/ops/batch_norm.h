#pragma once

#include <ATen/ATen.h>

#include <functional>

namespace kinefit {

// Batch normalisation of x [N, C, ...], taken apart so that the backward pass can rebuild the
// normalised and activated tensor from x instead of keeping it. Nothing here is seen by autograd.
// x is contiguous, float, double or bfloat16 (half on CUDA), or blocked (ops/blocked.h); everything
// per channel, [C], is float32 (double for double). On the CPU and on a GPU each function is one
// pass or two over memory (batch_norm_rows.h, blocked_norm.h, norm_gpu.h); elsewhere it is made of
// ATen operations, which are also what the others are tested against.

// One layer's tensors, all [C].
struct BatchNormTensors {
  at::Tensor gamma, beta;
  at::Tensor running_mean, running_var;
  at::Tensor batches_tracked = {};  // int64 scalar, counts training batches; may be undefined
};

// Adds `values` ([n] float64 on the CPU or the batch's GPU) up over all processes that train one
// batch together, in place, with the same bits in each. How is not the operations' business.
using SumOverRanks = std::function<void(at::Tensor& values)>;

struct BatchNormStatistics {
  at::Tensor mean, inverse_std;
  bool of_batch = true;  // false: the running ones, which have no gradient
  // Of a batch that several processes share: how to add up, and the elements per channel of all.
  const SumOverRanks* sum = nullptr;
  double count = 0;
  at::Tensor total = {};  // the same where it stays on a GPU: a double
};

// For which device the meta device follows shapes and allocations: kCPU (default) or another.
void SetMetaStandsFor(c10::DeviceType device);
// False: the CPU too takes the composition of ATen operations that other devices have. For tests.
void SetCpuLoops(bool on);
// Whether own loops serve x: it is on the CPU, or on the meta device and that stands for the CPU.
bool RunsCpuLoops(const at::Tensor& x);
// Whether x is on a GPU, or on the meta device and that stands for one.
bool RunsOnGpu(const at::Tensor& x);

// Statistics of the batch; moves the running ones by `momentum` as PyTorch does (unbiased
// variance) and counts the batch. With `sum` (not owned, needed again by BatchNormBackward) x is
// this process's part of a batch, and mean and variance are those of the whole.
BatchNormStatistics BatchStatistics(const at::Tensor& x, const BatchNormTensors& bn,
                                    double momentum, double epsilon,
                                    const SumOverRanks* sum = nullptr);
BatchNormStatistics RunningStatistics(const BatchNormTensors& bn, double epsilon);

// A tensor on its way through a batch norm; `bn` null: as it is.
struct Normalisable {
  at::Tensor x;
  const BatchNormTensors* bn = nullptr;
  const BatchNormStatistics* statistics = nullptr;
};

// bn(x), or relu(bn(x)). A new tensor.
at::Tensor Normalised(const Normalisable& x, bool relu);
// relu(a + b), each through its batch norm. In the memory of `into`, which may be a.x, whose values
// are then lost, or undefined: a new tensor.
at::Tensor NormalisedSum(const Normalisable& a, const Normalisable& b, at::Tensor into);
// What MaskBySum found out on the way and BatchNormBackward need not compute again: for the norms
// of both terms of the sum. Undefined where nothing is saved.
using TermSums = at::Tensor;
// Adds `add`, if defined, to `grad` and sets it to 0 where NormalisedSum(a, b) is 0, in place.
TermSums MaskBySum(at::Tensor& grad, const at::Tensor& add, const Normalisable& a,
                   const Normalisable& b);

struct BatchNormGradients {
  at::Tensor input;        // as x; in the memory of `into`
  at::Tensor gamma, beta;  // [C]
};
// Gradients of bn(x), or relu(bn(x)), for a gradient `grad` of the result. `into` is x's or grad's
// own tensor, whose values are then lost, or an undefined one. Where processes share the batch, the
// input's gradient sees the whole of it; those of gamma and beta are this process's share. `sums`:
// from MaskBySum, of whose terms x is number `term` (0, 1).
BatchNormGradients BatchNormBackward(const at::Tensor& grad, const Normalisable& x, bool relu,
                                     at::Tensor into, const TermSums& sums = {}, int term = 0);

}  // namespace kinefit
