#include "ops/batch_norm.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <tuple>
#include <type_traits>

#include "libtorch/versions.h"
#include "ops/batch_norm_rows.h"
#include "ops/blocked.h"
#include "ops/blocked_norm.h"
#include "ops/norm_gpu.h"

namespace kinefit {
namespace {

c10::DeviceType meta_stands_for = c10::DeviceType::CPU;
bool cpu_loops = true;

bool OnCpu(const at::Tensor& x) { return RunsCpuLoops(x); }

template <typename T>
T* Data(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

// Calls run(T()) with the element type of x.
template <typename Run>
void ForType(const at::Tensor& x, const Run& run) {
  switch (x.scalar_type()) {  // NOLINTNEXTLINE(bugprone-branch-clone): of other types
    case at::kFloat:
      return run(float());
    case at::kDouble:
      return run(double());
    case at::kBFloat16:
      return run(BFloat16Bits());
    default:
      TORCH_CHECK(false, "batch norm on the CPU does not take ", x.scalar_type());
  }
}

// The rows of a contiguous [N, C, ...] tensor.
struct Rows {
  explicit Rows(const at::Tensor& x)
      : n(x.size(0)),
        channels(x.size(1)),
        length(n * channels == 0 ? 0 : x.numel() / n / channels) {
    TORCH_INTERNAL_ASSERT(x.is_contiguous());
  }
  int64_t At(int64_t sample, int64_t channel) const {
    return (sample * channels + channel) * length;
  }
  double count() const { return static_cast<double>(n * length); }
  // Channels that are worth a thread.
  int64_t grain() const { return std::max<int64_t>(1, 8192 / std::max<int64_t>(n * length, 1)); }

  int64_t n, channels, length;
};

// Calls run(channel, first element of the row) for every row, a channel's rows in order on one
// thread.
template <typename Run>
void ForEachChannel(const Rows& rows, const Run& run) {
  at::parallel_for(0, rows.channels, rows.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) run(c);
  });
}

// What is per channel has this type.
at::TensorOptions PerChannel(const at::Tensor& x) {
  return x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

// scale and shift of one channel as ATen's CPU kernel folds them; one and zero without a norm.
template <typename P>
class Folded {
 public:
  explicit Folded(const Normalisable& x) {
    if (x.bn == nullptr) return;
    gamma_ = Data<P>(x.bn->gamma);
    beta_ = Data<P>(x.bn->beta);
    mean_ = Data<P>(x.statistics->mean);
    inverse_std_ = Data<P>(x.statistics->inverse_std);
  }
  ScaleShift<P> At(int64_t c) const {
    if (gamma_ == nullptr) return {};
    const P scale = inverse_std_[c] * gamma_[c];
    return {scale, std::fma(-mean_[c], scale, beta_[c])};
  }

 private:
  const P* gamma_ = nullptr;
  const P* beta_ = nullptr;
  const P* mean_ = nullptr;
  const P* inverse_std_ = nullptr;
};

// [C] -> [1, C, 1, ...] as x.
at::Tensor AsChannels(const at::Tensor& values, const at::Tensor& x) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[1] = -1;
  return values.view(shape);
}

std::vector<int64_t> AllButChannels(const at::Tensor& x) {
  std::vector<int64_t> dims = {0};
  for (int64_t i = 2; i < x.dim(); ++i) dims.push_back(i);
  return dims;
}

// ---- Any device: ATen ---------------------------------------------------------------------------

// bn(x) in the per-channel type.
at::Tensor Affine(const Normalisable& x) {
  if (x.bn == nullptr) return x.x;
  const at::Tensor scale = x.statistics->inverse_std * x.bn->gamma;
  const at::Tensor shift = x.bn->beta - x.statistics->mean * scale;
  return at::mul(x.x, AsChannels(scale, x.x)).add_(AsChannels(shift, x.x));
}

BatchNormStatistics AtenStatistics(const at::Tensor& x, double epsilon,
                                   at::Tensor* unbiased_variance) {
  const auto dims = AllButChannels(x);
  const auto type = c10::typeMetaToScalarType(PerChannel(x).dtype());
  BatchNormStatistics result;
  at::Tensor variance;
  if (x.is_meta()) {
    result.mean = at::empty({x.size(1)}, PerChannel(x));
    variance = at::empty({x.size(1)}, PerChannel(x));
  } else {
    std::tie(variance, result.mean) = at::var_mean(x, dims, /*unbiased=*/false);
    result.mean = result.mean.to(type);
    variance = variance.to(type);
  }
  result.inverse_std = (variance + epsilon).rsqrt_();
  const double count = static_cast<double>(x.numel()) / static_cast<double>(x.size(1));
  *unbiased_variance = variance * (count / std::max(count - 1, 1.0));
  return result;
}

BatchNormGradients AtenBackward(const at::Tensor& grad, const Normalisable& x, bool relu,
                                at::Tensor into) {
  const auto dims = AllButChannels(x.x);
  at::Tensor g = grad;
  if (relu) g = g * Affine(x).gt(0);
  at::Tensor centred = at::sub(x.x, AsChannels(x.statistics->mean, x.x));
  const auto type = c10::typeMetaToScalarType(PerChannel(x.x).dtype());
  const at::Tensor sum = at::sum(g, dims, false, type);
  const at::Tensor dot = at::sum(g * centred, dims, false, type);
  const at::Tensor& inverse_std = x.statistics->inverse_std;
  const at::Tensor factor = AsChannels(inverse_std * x.bn->gamma, x.x);
  BatchNormGradients result{std::move(into), dot * inverse_std, sum};
  if (x.statistics->of_batch) {
    const double count = static_cast<double>(x.x.numel()) / static_cast<double>(x.x.size(1));
    const at::Tensor slope = dot * inverse_std * inverse_std / count;
    centred.mul_(AsChannels(slope, x.x)).neg_().add_(g).sub_(AsChannels(sum / count, x.x));
  } else {
    centred.copy_(g);
  }
  centred.mul_(factor);
  if (result.input.defined()) {
    result.input.copy_(centred);
  } else {
    result.input = centred.to(x.x.scalar_type());
  }
  return result;
}

// ---- The CPU ------------------------------------------------------------------------------------

template <typename T>
void CpuStatistics(const at::Tensor& x, const BatchNormTensors& bn, double momentum, double epsilon,
                   const BatchNormStatistics& result) {
  using P = typename RowParameter<T>::Type;
  const Rows rows(x);
  const T* data = Data<T>(x);
  P* mean = Data<P>(result.mean);
  P* inverse_std = Data<P>(result.inverse_std);
  P* running_mean = Data<P>(bn.running_mean);
  P* running_var = Data<P>(bn.running_var);
  ForEachChannel(rows, [&](int64_t c) {
    double sum = 0;
    for (int64_t n = 0; n < rows.n; ++n) sum += RowSum(data + rows.At(n, c), rows.length);
    mean[c] = static_cast<P>(sum / rows.count());
    double squares = 0;
    for (int64_t n = 0; n < rows.n; ++n) {
      squares += RowSquares(data + rows.At(n, c), rows.length, mean[c]);
    }
    // Rounded where ATen rounds.
    const P total = static_cast<P>(squares);
    const auto value = static_cast<double>(total / static_cast<P>(rows.count()));
    const P unbiased = total / static_cast<P>(std::max(rows.count() - 1, 1.0));
    const P m = static_cast<P>(momentum);
    running_mean[c] = m * mean[c] + (1 - m) * running_mean[c];
    running_var[c] = static_cast<P>(static_cast<double>(m) * static_cast<double>(unbiased) +
                                    static_cast<double>((1 - m) * running_var[c]));
    inverse_std[c] = static_cast<P>(1 / std::sqrt(value + epsilon));
  });
}

template <typename T>
void CpuInputGradient(const at::Tensor& grad, const Normalisable& x, bool relu,
                      const BatchNormGradients& result) {
  using P = typename RowParameter<T>::Type;
  const Rows rows(x.x);
  const T* g = Data<T>(grad);
  const T* values = Data<T>(x.x);
  T* out = Data<T>(result.input);
  const Folded<P> folded(x);
  const P* mean = Data<P>(x.statistics->mean);
  const P* inverse_std = Data<P>(x.statistics->inverse_std);
  const P* gamma = Data<P>(x.bn->gamma);
  ForEachChannel(rows, [&](int64_t c) {
    const ScaleShift<P> fold = folded.At(c);
    double sum = 0;
    double dot = 0;
    for (int64_t n = 0; n < rows.n; ++n) {
      const int64_t at = rows.At(n, c);
      const GradientSums<T> row = RowGradientSums(g + at, values + at, rows.length, mean[c], relu,
                                                  fold, kFusesBatchNormProducts);
      sum += static_cast<double>(row.grad);
      dot += static_cast<double>(row.dot);
    }
    Data<P>(result.gamma)[c] = static_cast<P>(dot * static_cast<double>(inverse_std[c]));
    Data<P>(result.beta)[c] = static_cast<P>(sum);
    InputGradient<T> k{mean[c], 0, 0, inverse_std[c], gamma[c]};
    if (x.statistics->of_batch) {
      k.slope = static_cast<P>(dot) * inverse_std[c] * inverse_std[c] /
                static_cast<P>(rows.n * rows.length);
      k.offset = static_cast<P>(sum / rows.count());
    }
    for (int64_t n = 0; n < rows.n; ++n) {
      const int64_t at = rows.At(n, c);
      InputGradientRow(g + at, values + at, rows.length, k, relu, fold, out + at);
    }
  });
}

// ---- A batch that several processes share -------------------------------------------------------

// [1 + 2C]: elements per channel, each channel's sum, each channel's sum of squares. In double, so
// that the variance may be taken as a difference.
at::Tensor LocalMoments(const at::Tensor& x) {
  const int64_t channels = x.size(1);
  at::Tensor moments = at::empty({1 + 2 * channels}, at::kDouble);
  auto* out = moments.data_ptr<double>();
  out[0] = static_cast<double>(x.numel()) / static_cast<double>(channels);
  if (!OnCpu(x)) {
    const auto dims = AllButChannels(x);
    const at::Tensor sum = at::sum(x, dims, false, at::kDouble);
    const at::Tensor mean = sum / out[0];
    const at::Tensor centred = at::sub(x, AsChannels(mean.to(at::kFloat), x)).square_();
    // The mean that was taken off is a float: what it differs by is put back exactly.
    const at::Tensor off = mean.to(at::kFloat).to(at::kDouble);
    const at::Tensor squares =
        at::sum(centred, dims, false, at::kDouble) + off * (sum * 2 - off * out[0]);
    moments.narrow(0, 1, channels).copy_(sum);
    moments.narrow(0, 1 + channels, channels).copy_(squares);
    return moments;
  }
  ForType(x, [&](auto type) {
    using T = decltype(type);
    using P = typename RowParameter<T>::Type;
    const Rows rows(x);
    ForEachChannel(rows, [&](int64_t c) {
      double sum = 0;
      double squares = 0;
      for (int64_t n = 0; n < rows.n; ++n) {
        sum += RowSum(Data<T>(x) + rows.At(n, c), rows.length);
      }
      const P mean = static_cast<P>(sum / rows.count());
      for (int64_t n = 0; n < rows.n; ++n) {
        squares += RowSquares(Data<T>(x) + rows.At(n, c), rows.length, mean);
      }
      const auto off = static_cast<double>(mean);
      out[1 + c] = sum;
      out[1 + channels + c] = squares + off * (2 * sum - off * rows.count());
    });
  });
  return moments;
}

BatchNormStatistics SharedStatistics(const at::Tensor& x, const BatchNormTensors& bn,
                                     double momentum, double epsilon, const SumOverRanks& sum) {
  at::Tensor moments = LocalMoments(x);
  sum(moments);
  const int64_t channels = x.size(1);
  const double count = moments[0].item<double>();
  const at::Tensor mean = moments.narrow(0, 1, channels) / count;
  const at::Tensor variance =
      (moments.narrow(0, 1 + channels, channels) / count - mean * mean).clamp_min_(0);
  const at::TensorOptions options = PerChannel(x);
  BatchNormStatistics result;
  result.mean = mean.to(options);
  result.inverse_std = (variance + epsilon).rsqrt_().to(options);
  result.sum = &sum;
  result.count = count;
  at::Tensor running_mean = bn.running_mean;
  at::Tensor running_var = bn.running_var;
  running_mean.mul_(1 - momentum).add_(result.mean, momentum);
  running_var.mul_(1 - momentum)
      .add_((variance * (count / std::max(count - 1, 1.0))).to(options), momentum);
  return result;
}

// sum(grad) and sum(grad * (x - mean)) per channel of this process's part: [2C].
at::Tensor LocalGradientSums(const at::Tensor& grad, const Normalisable& x, bool relu) {
  const int64_t channels = x.x.size(1);
  at::Tensor sums = at::empty({2 * channels}, at::kDouble);
  auto* out = sums.data_ptr<double>();
  if (!OnCpu(x.x)) {
    const auto dims = AllButChannels(x.x);
    const at::Tensor g = relu ? grad * Affine(x).gt(0) : grad;
    const at::Tensor centred = at::sub(x.x, AsChannels(x.statistics->mean, x.x));
    sums.narrow(0, 0, channels).copy_(at::sum(g, dims, false, at::kDouble));
    sums.narrow(0, channels, channels).copy_(at::sum(g * centred, dims, false, at::kDouble));
    return sums;
  }
  ForType(x.x, [&](auto type) {
    using T = decltype(type);
    using P = typename RowParameter<T>::Type;
    const Rows rows(x.x);
    const Folded<P> folded(x);
    const P* mean = Data<P>(x.statistics->mean);
    ForEachChannel(rows, [&](int64_t c) {
      out[c] = out[channels + c] = 0;
      for (int64_t n = 0; n < rows.n; ++n) {
        const int64_t at = rows.At(n, c);
        const GradientSums<T> row =
            RowGradientSums(Data<T>(grad) + at, Data<T>(x.x) + at, rows.length, mean[c], relu,
                            folded.At(c), kFusesBatchNormProducts);
        out[c] += static_cast<double>(row.grad);
        out[channels + c] += static_cast<double>(row.dot);
      }
    });
  });
  return sums;
}

// The input's gradient, given what LocalGradientSums gave in all processes together.
at::Tensor SharedInputGradient(const at::Tensor& grad, const Normalisable& x, bool relu,
                               const at::Tensor& sums, at::Tensor into) {
  const int64_t channels = x.x.size(1);
  const double count = x.statistics->count;
  const auto options = PerChannel(x.x);
  const at::Tensor& inverse_std = x.statistics->inverse_std;
  const at::Tensor offset = (sums.narrow(0, 0, channels) / count).to(options);
  const at::Tensor slope =
      (sums.narrow(0, channels, channels) / count).to(options) * inverse_std * inverse_std;
  if (!OnCpu(x.x)) {
    const at::Tensor g = relu ? grad * Affine(x).gt(0) : grad;
    at::Tensor result = at::sub(x.x, AsChannels(x.statistics->mean, x.x));
    result.mul_(AsChannels(slope, x.x)).neg_().add_(g).sub_(AsChannels(offset, x.x));
    result.mul_(AsChannels(inverse_std * x.bn->gamma, x.x));
    return into.defined() ? into.copy_(result) : result.to(x.x.scalar_type());
  }
  at::Tensor result = into.defined() ? std::move(into) : at::empty_like(x.x);
  ForType(x.x, [&](auto type) {
    using T = decltype(type);
    using P = typename RowParameter<T>::Type;
    const Rows rows(x.x);
    const Folded<P> folded(x);
    ForEachChannel(rows, [&](int64_t c) {
      const InputGradient<T> k{Data<P>(x.statistics->mean)[c], Data<P>(slope)[c],
                               Data<P>(offset)[c], Data<P>(inverse_std)[c],
                               Data<P>(x.bn->gamma)[c]};
      for (int64_t n = 0; n < rows.n; ++n) {
        const int64_t at = rows.At(n, c);
        InputGradientRow(Data<T>(grad) + at, Data<T>(x.x) + at, rows.length, k, relu, folded.At(c),
                         Data<T>(result) + at);
      }
    });
  });
  return result;
}

BatchNormGradients SharedBackward(const at::Tensor& grad, const Normalisable& x, bool relu,
                                  at::Tensor into) {
  const int64_t channels = x.x.size(1);
  at::Tensor sums = LocalGradientSums(grad, x, relu);
  const auto options = PerChannel(x.x);
  BatchNormGradients result;
  result.beta = sums.narrow(0, 0, channels).to(options, /*non_blocking=*/false, /*copy=*/true);
  result.gamma = (sums.narrow(0, channels, channels).to(options.device()) *
                  x.statistics->inverse_std.to(at::kDouble))
                     .to(options);
  (*x.statistics->sum)(sums);
  result.input = SharedInputGradient(grad, x, relu, sums, std::move(into));
  return result;
}

}  // namespace

void SetMetaStandsFor(c10::DeviceType device) { meta_stands_for = device; }
void SetCpuLoops(bool on) { cpu_loops = on; }
bool RunsCpuLoops(const at::Tensor& x) {
  if (x.is_cpu()) return cpu_loops && !GpuIsEmulated();
  return x.is_meta() && meta_stands_for == c10::DeviceType::CPU;
}

bool RunsOnGpu(const at::Tensor& x) {
  if (x.is_cpu()) return GpuIsEmulated();
  return !RunsCpuLoops(x);
}

BatchNormStatistics BatchStatistics(const at::Tensor& x, const BatchNormTensors& bn,
                                    double momentum, double epsilon, const SumOverRanks* sum) {
  if (RunsOnGpu(x)) return GpuStatistics(x, bn, momentum, epsilon, sum);
  at::Tensor tracked = bn.batches_tracked;
  if (tracked.defined()) tracked.add_(1);
  if (IsBlocked(x)) return BlockedStatistics(x, bn, momentum, epsilon, sum);
  if (sum != nullptr && !x.is_meta()) return SharedStatistics(x, bn, momentum, epsilon, *sum);
  if (OnCpu(x)) {
    const at::TensorOptions options = PerChannel(x);
    BatchNormStatistics result{at::empty({x.size(1)}, options), at::empty({x.size(1)}, options)};
    if (x.is_meta()) return result;
    ForType(x, [&](auto type) { CpuStatistics<decltype(type)>(x, bn, momentum, epsilon, result); });
    return result;
  }
  at::Tensor unbiased_variance;
  BatchNormStatistics result = AtenStatistics(x, epsilon, &unbiased_variance);
  at::Tensor running_mean = bn.running_mean;
  at::Tensor running_var = bn.running_var;
  running_mean.mul_(1 - momentum).add_(result.mean, momentum);
  running_var.mul_(1 - momentum).add_(unbiased_variance, momentum);
  return result;
}

BatchNormStatistics RunningStatistics(const BatchNormTensors& bn, double epsilon) {
  return {bn.running_mean, (bn.running_var + epsilon).rsqrt_(), false};
}

at::Tensor Normalised(const Normalisable& x, bool relu) {
  if (IsBlocked(x.x)) return BlockedNormalised(x, relu);
  if (RunsOnGpu(x.x)) return GpuNormalised(x, relu);
  if (!OnCpu(x.x)) {
    at::Tensor result = Affine(x);  // a new one, as there is a norm
    if (relu) result.relu_();
    return result.to(x.x.scalar_type());
  }
  at::Tensor result = at::empty_like(x.x);
  if (x.x.is_meta()) return result;
  ForType(x.x, [&](auto type) {
    using T = decltype(type);
    const Rows rows(x.x);
    const Folded<typename RowParameter<T>::Type> folded(x);
    ForEachChannel(rows, [&](int64_t c) {
      for (int64_t n = 0; n < rows.n; ++n) {
        const int64_t at = rows.At(n, c);
        NormaliseRow(Data<T>(x.x) + at, rows.length, folded.At(c), relu, Data<T>(result) + at);
      }
    });
  });
  return result;
}

at::Tensor NormalisedSum(const Normalisable& a, const Normalisable& b, at::Tensor into) {
  if (IsBlocked(a.x)) return BlockedNormalisedSum(a, b, std::move(into));
  if (RunsOnGpu(a.x)) return GpuNormalisedSum(a, b, std::move(into));
  if (!OnCpu(a.x)) {
    const at::Tensor sum = Affine(a).add_(Affine(b)).relu_();
    return into.defined() ? into.copy_(sum) : sum.to(a.x.scalar_type());
  }
  at::Tensor result = into.defined() ? std::move(into) : at::empty_like(a.x);
  if (a.x.is_meta()) return result;
  ForType(a.x, [&](auto type) {
    using T = decltype(type);
    const Rows rows(a.x);
    const Folded<typename RowParameter<T>::Type> fold_a(a);
    const Folded<typename RowParameter<T>::Type> fold_b(b);
    ForEachChannel(rows, [&](int64_t c) {
      for (int64_t n = 0; n < rows.n; ++n) {
        const int64_t at = rows.At(n, c);
        NormaliseSumRow(Data<T>(a.x) + at, rows.length, fold_a.At(c), Data<T>(b.x) + at,
                        fold_b.At(c), Data<T>(result) + at);
      }
    });
  });
  return result;
}

TermSums MaskBySum(at::Tensor& grad, const at::Tensor& add, const Normalisable& a,
                   const Normalisable& b) {
  if (RunsOnGpu(a.x)) return GpuMaskBySum(grad, add, a, b);
  if (add.defined()) grad.add_(add);
  if (IsBlocked(a.x)) {
    BlockedMaskBySum(grad, a, b);
    return {};
  }
  if (!OnCpu(a.x)) {
    at::threshold_backward_out(grad, grad, Affine(a).add_(Affine(b)).to(grad.scalar_type()), 0);
    return {};
  }
  if (a.x.is_meta()) return {};
  ForType(a.x, [&](auto type) {
    using T = decltype(type);
    const Rows rows(a.x);
    const Folded<typename RowParameter<T>::Type> fold_a(a);
    const Folded<typename RowParameter<T>::Type> fold_b(b);
    ForEachChannel(rows, [&](int64_t c) {
      for (int64_t n = 0; n < rows.n; ++n) {
        const int64_t at = rows.At(n, c);
        MaskSumRow(Data<T>(a.x) + at, rows.length, fold_a.At(c), Data<T>(b.x) + at, fold_b.At(c),
                   Data<T>(grad) + at);
      }
    });
  });
  return {};
}

BatchNormGradients BatchNormBackward(const at::Tensor& grad, const Normalisable& x, bool relu,
                                     at::Tensor into, const TermSums& sums, int term) {
  if (RunsOnGpu(x.x)) return GpuNormBackward(grad, x, relu, std::move(into), sums, term);
  if (IsBlocked(x.x)) return BlockedNormBackward(grad, x, relu, std::move(into));
  if (x.statistics->sum != nullptr) return SharedBackward(grad, x, relu, std::move(into));
  if (!OnCpu(x.x)) return AtenBackward(grad, x, relu, std::move(into));
  BatchNormGradients result;
  result.input = into.defined() ? std::move(into) : at::empty_like(x.x);
  result.gamma = at::empty({x.x.size(1)}, PerChannel(x.x));
  result.beta = at::empty({x.x.size(1)}, PerChannel(x.x));
  if (x.x.is_meta()) return result;
  ForType(x.x, [&](auto type) { CpuInputGradient<decltype(type)>(grad, x, relu, result); });
  return result;
}

}  // namespace kinefit
