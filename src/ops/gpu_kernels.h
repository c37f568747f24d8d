#pragma once

#include <array>
#include <cstdint>

// Our kernels for GPUs, over channels-last memory: a feature map [N, C, T, H, W] is a matrix of
// N*T*H*W rows of C channels. Raw pointers, so that the file that nvcc compiles needs no header of
// LibTorch; ops/norm_gpu.h is what the rest of the program calls. Everything is queued on `stream`
// and throws nothing. Sums are taken in a fixed order: the same input gives the same bits.
//
// Per channel, [C]: float; double where the elements are double.

namespace kinefit::cuda {

enum class Element { kHalf, kBFloat16, kFloat, kDouble };

// A matrix of `rows` x `channels` elements.
struct Matrix {
  const void* data = nullptr;
  Element element = Element::kFloat;
  int64_t rows = 0;
  int64_t channels = 0;
};

// What a normalised channel is made of; all null: the values as they are.
struct Norm {
  const void* gamma = nullptr;
  const void* beta = nullptr;
  const void* mean = nullptr;
  const void* inverse_std = nullptr;
};

// Of FinishStatistics. With `count` null it is `rows`; `tracked` may be null.
struct Finish {
  const double* moments;
  const double* count;
  double rows, momentum, epsilon;
  void *mean, *inverse_std, *running_mean, *running_var;
  int64_t* tracked;
};

// Of InputGradient. `count` elements per channel share the statistics, null: as many as x has rows;
// with `of_batch` false the statistics are constants. x is term number `which` - 1 of GradientSums.
// `own_sums` are this process's part of `sums`, of which gamma's and beta's gradients are made.
struct Gradient {
  const void* grad;
  Matrix x;
  Norm norm;
  bool relu;
  bool of_batch;
  int which;
  const double* sums;
  const double* own_sums;
  const double* count;
  void *out, *gamma_grad, *beta_grad;
};

// Max pool 1x3x3 with padding 1 of [frames, height, width, channels].
struct Pool {
  Element element;
  int64_t frames, height, width, channels, out_height, out_width, stride;
};

// Of MakeStemInput.
struct StemInput {
  bool bytes;
  Element element;
  int64_t samples, channels, padded, frames, pixels;
  float mean[4], scale[4];
};

// Of DropoutMask: a RandomStream's key and lane, the number of the first draw.
struct Dropout {
  std::array<uint32_t, 2> key, lane;
  int64_t first, count;
  double chance;
  float kept;
};

struct Kernels {
  // Doubles of scratch that Moments and GradientSums need for a matrix.
  int64_t (*ScratchDoubles)(int64_t rows, int64_t channels, Element element);
  // `moments` [2, C] double: the sums of x and of its squares, taken about the first row's values
  // so that a large mean costs no digits.
  void (*Moments)(const Matrix& x, double* scratch, double* moments, void* stream);
  // Mean and 1 / sqrt(variance + epsilon) per channel, from their moments; moves the running
  // statistics as PyTorch does (unbiased variance) and counts the batch.
  void (*FinishStatistics)(const Finish& finish, int64_t channels, bool doubles, void* stream);
  // out = x normalised, + b normalised (or as it is) if b.data, then ReLU if `relu`. `out` may be
  // x.
  void (*Normalise)(const Matrix& x, const Norm& norm, const Matrix& b, const Norm& norm_b,
                    bool relu, void* out, void* stream);
  // Sums for the gradient of a norm, [3, C] double: of grad, of grad * (a - mean of a) and, where b
  // has a norm, of grad * (b - mean of b); before that grad is set to 0 where the result that
  // `relu` applied to is not above 0: a's norm alone (b.data null), or the sum of both, in which
  // case the masked gradient is written back to `grad`. `add`, if not null, is added to grad first.
  void (*GradientSums)(void* grad, const void* add, const Matrix& a, const Norm& norm_a,
                       const Matrix& b, const Norm& norm_b, bool relu, double* scratch,
                       double* sums, void* stream);
  // The input's gradient from these sums, into `out`, which may be x or grad; and those of gamma
  // and beta. `coefficients`: [3, C] scratch of the per-channel type.
  void (*InputGradient)(const Gradient& gradient, void* coefficients, void* stream);
  // With the place (0-8) of each maximum in its window; and the gradient.
  void (*MaxPool)(const Pool& pool, const void* x, void* out, uint8_t* places, void* stream);
  void (*MaxPoolGradient)(const Pool& pool, const void* grad, const uint8_t* places, void* out,
                          void* stream);
  // Frames or heatmaps to the layout and dtype a stem computes in: [N, T, H, W, padded] from
  // [N, C, T, H, W] of float (double for double), or from uint8 [N, T, H, W, C], then
  // (value - mean[c]) * scale[c]. Channels from C on are 0.
  void (*MakeStemInput)(const StemInput& shape, const void* source, void* out, void* stream);
  // values[i] = 0 where draw number first + i of RandomStream::Uniform is below `chance`, else
  // `kept`.
  void (*DropoutMask)(const Dropout& dropout, float* values, void* stream);
};

// Those that nvcc compiled; in builds without CUDA there are none.
const Kernels& CudaKernels();
// The same source compiled for the CPU, thread after thread, for tests (ops/testing/).
const Kernels& EmulatedKernels();

}  // namespace kinefit::cuda
