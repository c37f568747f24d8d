#include "ops/norm_gpu.h"

#include <utility>

#include "ops/channels_last.h"
#include "ops/gpu_kernels.h"

#ifdef KINEFIT_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace kinefit {
namespace {

cuda::Element ElementOf(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kHalf:
      return cuda::Element::kHalf;
    case at::kBFloat16:
      return cuda::Element::kBFloat16;
    case at::kFloat:
      return cuda::Element::kFloat;
    case at::kDouble:
      return cuda::Element::kDouble;
    default:
      TORCH_CHECK(false, "no kernels for features of type ", x.scalar_type());
  }
}

at::TensorOptions PerChannel(const at::Tensor& x) {
  return x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

const cuda::Kernels* emulated = nullptr;

// Queues kernels with `launch(kernels, stream)`; on the meta device, nothing.
template <typename Launch>
void Queue(const at::Tensor& x, const Launch& launch) {
  if (x.is_meta()) return;
  if (x.is_cpu() && emulated != nullptr) {
    launch(*emulated, static_cast<void*>(nullptr));
    return;
  }
#ifdef KINEFIT_CUDA
  launch(cuda::CudaKernels(), static_cast<void*>(c10::cuda::getCurrentCUDAStream().stream()));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
#else
  TORCH_CHECK(false, "this build has no kernels for GPUs");
#endif
}

cuda::Matrix MatrixOf(const at::Tensor& x) {
  return {x.is_meta() ? nullptr : x.data_ptr(), ElementOf(x), x.numel() / x.size(1), x.size(1)};
}

void* Data(const at::Tensor& x) { return x.defined() && !x.is_meta() ? x.data_ptr() : nullptr; }

cuda::Norm NormOf(const Normalisable& x) {
  if (x.bn == nullptr) return {};
  return {Data(x.bn->gamma), Data(x.bn->beta), Data(x.statistics->mean),
          Data(x.statistics->inverse_std)};
}

Normalisable InLayout(const Normalisable& x) { return {ChannelsLast(x.x), x.bn, x.statistics}; }

at::Tensor Doubles(const at::Tensor& x, int64_t count) {
  return at::empty({count}, PerChannel(x).dtype(at::kDouble));
}

at::Tensor Scratch(const at::Tensor& x) {
  const cuda::Matrix m = MatrixOf(x);
  int64_t doubles = 3 * m.channels * 64;  // on the meta device; the kernels' own is of this order
  Queue(x, [&](const cuda::Kernels& kernels, void* /*stream*/) {
    doubles = kernels.ScratchDoubles(m.rows, m.channels, m.element);
  });
  return Doubles(x, doubles);
}

}  // namespace

void EmulateGpu(const cuda::Kernels* kernels) { emulated = kernels; }
bool GpuIsEmulated() { return emulated != nullptr; }

BatchNormStatistics GpuStatistics(const at::Tensor& input, const BatchNormTensors& bn,
                                  double momentum, double epsilon, const SumOverRanks* sum) {
  const at::Tensor x = ChannelsLast(input);
  const int64_t channels = x.size(1);
  const int64_t rows = x.numel() / channels;
  BatchNormStatistics result{at::empty({channels}, PerChannel(x)),
                             at::empty({channels}, PerChannel(x))};
  at::Tensor moments = Doubles(x, 2 * channels + 1);  // and the number of elements
  {
    const at::Tensor scratch = Scratch(x);
    Queue(x, [&](const cuda::Kernels& kernels, void* stream) {
      kernels.Moments(MatrixOf(x), scratch.data_ptr<double>(), moments.data_ptr<double>(), stream);
    });
  }
  if (sum != nullptr && !x.is_meta()) {
    moments.narrow(0, 2 * channels, 1).fill_(static_cast<double>(rows));
    (*sum)(moments);
    result.sum = sum;
    result.total = moments.narrow(0, 2 * channels, 1);
  }
  Queue(x, [&](const cuda::Kernels& kernels, void* stream) {
    kernels.FinishStatistics({moments.data_ptr<double>(),
                              sum == nullptr ? nullptr : moments.data_ptr<double>() + 2 * channels,
                              static_cast<double>(rows), momentum, epsilon, Data(result.mean),
                              Data(result.inverse_std), Data(bn.running_mean), Data(bn.running_var),
                              static_cast<int64_t*>(Data(bn.batches_tracked))},
                             channels, x.scalar_type() == at::kDouble, stream);
  });
  return result;
}

at::Tensor GpuNormalised(const Normalisable& given, bool relu) {
  const Normalisable x = InLayout(given);
  at::Tensor result = at::empty_like(x.x);
  Queue(x.x, [&](const cuda::Kernels& kernels, void* stream) {
    kernels.Normalise(MatrixOf(x.x), NormOf(x), {}, {}, relu, result.data_ptr(), stream);
  });
  return result;
}

at::Tensor GpuNormalisedSum(const Normalisable& given_a, const Normalisable& given_b,
                            at::Tensor into) {
  const Normalisable a = InLayout(given_a);
  const Normalisable b = InLayout(given_b);
  at::Tensor result =
      into.defined() && IsChannelsLast(into) ? std::move(into) : at::empty_like(a.x);
  Queue(a.x, [&](const cuda::Kernels& kernels, void* stream) {
    kernels.Normalise(MatrixOf(a.x), NormOf(a), MatrixOf(b.x), NormOf(b), /*relu=*/true,
                      result.data_ptr(), stream);
  });
  return result;
}

GpuGradientSums GpuMaskBySum(const at::Tensor& grad, const at::Tensor& add,
                             const Normalisable& given_a, const Normalisable& given_b) {
  const Normalisable a = InLayout(given_a);
  const Normalisable b = InLayout(given_b);
  TORCH_INTERNAL_ASSERT(IsChannelsLast(grad) && (!add.defined() || IsChannelsLast(add)));
  at::Tensor sums = Doubles(a.x, 3 * a.x.size(1));
  const at::Tensor scratch = Scratch(a.x);
  Queue(a.x, [&](const cuda::Kernels& kernels, void* stream) {
    kernels.GradientSums(grad.data_ptr(), Data(add), MatrixOf(a.x), NormOf(a), MatrixOf(b.x),
                         NormOf(b), /*relu=*/true, scratch.data_ptr<double>(),
                         sums.data_ptr<double>(), stream);
  });
  return sums;
}

BatchNormGradients GpuNormBackward(const at::Tensor& given_grad, const Normalisable& given,
                                   bool relu, at::Tensor into, const GpuGradientSums& given_sums,
                                   int term) {
  const Normalisable x = InLayout(given);
  const at::Tensor grad = ChannelsLast(given_grad);
  const int64_t channels = x.x.size(1);
  at::Tensor own = given_sums;
  if (!own.defined()) {
    own = Doubles(x.x, 3 * channels);
    const at::Tensor scratch = Scratch(x.x);
    Queue(x.x, [&](const cuda::Kernels& kernels, void* stream) {
      kernels.GradientSums(grad.data_ptr(), nullptr, MatrixOf(x.x), NormOf(x), {}, {}, relu,
                           scratch.data_ptr<double>(), own.data_ptr<double>(), stream);
    });
  }
  const BatchNormStatistics& statistics = *x.statistics;
  at::Tensor all = own;
  if (statistics.sum != nullptr && !x.x.is_meta()) {
    all = own.narrow(0, 0, (term + 2) * channels).clone();
    (*statistics.sum)(all);
  }
  BatchNormGradients result;
  result.input = into.defined() && IsChannelsLast(into) ? std::move(into) : at::empty_like(x.x);
  result.gamma = at::empty({channels}, PerChannel(x.x));
  result.beta = at::empty({channels}, PerChannel(x.x));
  const at::Tensor coefficients = at::empty({3 * channels}, PerChannel(x.x));
  Queue(x.x, [&](const cuda::Kernels& kernels, void* stream) {
    const auto* count = static_cast<const double*>(Data(statistics.total));
    kernels.InputGradient({grad.data_ptr(), MatrixOf(x.x), NormOf(x), relu, statistics.of_batch,
                           term + 1, all.data_ptr<double>(), own.data_ptr<double>(), count,
                           result.input.data_ptr(), Data(result.gamma), Data(result.beta)},
                          coefficients.data_ptr(), stream);
  });
  return result;
}

GpuPooled GpuMaxPool(const at::Tensor& input, int64_t stride) {
  const at::Tensor x = ChannelsLast(input);
  const auto out = [&](int64_t size) { return (size - 1) / stride + 1; };
  const std::vector<int64_t> sizes = {x.size(0), x.size(1), x.size(2), out(x.size(3)),
                                      out(x.size(4))};
  GpuPooled result{at::empty(sizes, x.options().memory_format(kChannelsLast)),
                   at::empty(sizes, x.options().dtype(at::kByte).memory_format(kChannelsLast))};
  Queue(x, [&](const cuda::Kernels& kernels, void* stream) {
    kernels.MaxPool({ElementOf(x), x.size(0) * x.size(2), x.size(3), x.size(4), x.size(1), sizes[3],
                     sizes[4], stride},
                    x.data_ptr(), result.value.data_ptr(), result.places.data_ptr<uint8_t>(),
                    stream);
  });
  return result;
}

at::Tensor GpuMaxPoolBackward(const at::Tensor& given, const at::Tensor& places,
                              at::IntArrayRef sizes, int64_t stride) {
  const at::Tensor grad = ChannelsLast(given);
  at::Tensor result = at::empty(sizes, grad.options().memory_format(kChannelsLast));
  Queue(grad, [&](const cuda::Kernels& kernels, void* stream) {
    kernels.MaxPoolGradient({ElementOf(grad), sizes[0] * sizes[2], sizes[3], sizes[4], sizes[1],
                             grad.size(3), grad.size(4), stride},
                            grad.data_ptr(), places.data_ptr<uint8_t>(), result.data_ptr(), stream);
  });
  return result;
}

at::Tensor GpuStemInput(const at::Tensor& given, at::ScalarType type,
                        const ByteNormalisation& bytes) {
  const at::Tensor x = given.contiguous();
  const bool are_bytes = x.scalar_type() == at::kByte;
  TORCH_CHECK(x.dim() == 5 && (!are_bytes || x.size(4) == 3),
              "a stem takes [N, C, T, H, W], or bytes of [N, T, H, W, 3]");
  const int64_t channels = x.size(are_bytes ? 4 : 1);
  const int64_t d = are_bytes ? 1 : 2;  // T, H, W from here on
  const int64_t at_once = type == at::kDouble ? 1 : type == at::kFloat ? 4 : 8;
  const int64_t padded = (channels + at_once - 1) / at_once * at_once;
  at::Tensor result = at::empty({x.size(0), padded, x.size(d), x.size(d + 1), x.size(d + 2)},
                                x.options().dtype(type).memory_format(kChannelsLast));
  cuda::StemInput shape{};
  shape.bytes = are_bytes;
  shape.element = ElementOf(result);
  shape.samples = x.size(0);
  shape.channels = channels;
  shape.padded = padded;
  shape.frames = x.size(d);
  shape.pixels = x.size(d + 1) * x.size(d + 2);
  for (size_t c = 0; are_bytes && c < 3; ++c) {
    shape.mean[c] = static_cast<float>(bytes.mean[c]);
    shape.scale[c] = 1.0F / static_cast<float>(bytes.std[c]);
  }
  Queue(x, [&](const cuda::Kernels& kernels, void* stream) {
    kernels.MakeStemInput(shape, x.data_ptr(), result.data_ptr(), stream);
  });
  return result;
}

void GpuDropoutMask(const RandomStream& stream, int64_t first, double chance, float kept,
                    const at::Tensor& mask) {
  Queue(mask, [&](const cuda::Kernels& kernels, void* queue) {
    kernels.DropoutMask({stream.key(), stream.lane(), first, mask.numel(), chance, kept},
                        mask.data_ptr<float>(), queue);
  });
}

}  // namespace kinefit
