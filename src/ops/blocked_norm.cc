#include "ops/blocked_norm.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "ops/blocked_rows.h"

namespace kinefit {
namespace {

// A blocked tensor as planes: plane p holds the positions of channels ChannelOf(p) and following of
// one sample.
struct Planes {
  explicit Planes(const at::Tensor& x)
      : samples(x.size(0)),
        blocks(x.size(1)),
        positions(x.size(2) * x.size(3) * x.size(4)),
        lanes(x.size(5)) {
    TORCH_INTERNAL_ASSERT(x.is_contiguous() && lanes == 16);
  }
  int64_t count() const { return samples * blocks; }
  int64_t channels() const { return blocks * lanes; }
  int64_t per_channel() const { return samples * positions; }
  int64_t At(int64_t plane) const { return plane * positions * lanes; }
  int64_t ChannelOf(int64_t plane) const { return plane % blocks * lanes; }

  // Planes that are worth a thread.
  int64_t grain() const {
    return std::max<int64_t>(1, 8192 / std::max<int64_t>(positions * lanes, 1));
  }

  int64_t samples, blocks, positions, lanes;
};

float* Data(const at::Tensor& x) { return x.data_ptr<float>(); }

// Calls run(BlockedRows<lanes>(), plane) for every plane, each on one thread.
template <typename Run>
void ForEachPlane(const Planes& planes, const Run& run) {
  at::parallel_for(0, planes.count(), planes.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) run(BlockedRows<16>(), p);
  });
}

// The batch norm of a Normalisable as scale and shift per channel; nothing without one.
class Folded {
 public:
  explicit Folded(const Normalisable& x) {
    if (x.bn == nullptr) return;
    const int64_t channels = x.bn->gamma.numel();
    scale_.resize(static_cast<size_t>(channels));
    shift_.resize(static_cast<size_t>(channels));
    for (int64_t c = 0; c < channels; ++c) {
      const auto i = static_cast<size_t>(c);
      scale_[i] = Data(x.statistics->inverse_std)[c] * Data(x.bn->gamma)[c];
      shift_[i] = std::fma(-Data(x.statistics->mean)[c], scale_[i], Data(x.bn->beta)[c]);
    }
  }
  LaneAffine At(int64_t channel) const {
    if (scale_.empty()) return {};
    return {scale_.data() + channel, shift_.data() + channel};
  }

 private:
  std::vector<float> scale_, shift_;
};

// Two sums per channel, each plane's taken by add(rows, plane, first, second), planes added up in
// the order of samples: [2C], the first sums before the second.
template <typename Add>
std::vector<double> SumPlanes(const Planes& planes, const Add& add) {
  std::vector<double> partial(static_cast<size_t>(2 * planes.count() * planes.lanes));
  ForEachPlane(planes, [&](auto rows, int64_t p) {
    double* first = partial.data() + 2 * p * planes.lanes;
    add(rows, p, first, first + planes.lanes);
  });
  std::vector<double> sums(static_cast<size_t>(2 * planes.channels()));
  for (int64_t p = 0; p < planes.count(); ++p) {
    const double* first = partial.data() + 2 * p * planes.lanes;
    double* to = sums.data() + planes.ChannelOf(p);
    for (int64_t k = 0; k < planes.lanes; ++k) {
      to[k] += first[k];
      to[planes.channels() + k] += first[planes.lanes + k];
    }
  }
  return sums;
}

void SumOver(const SumOverRanks& sum, std::vector<double>* values) {
  at::Tensor all = at::empty({static_cast<int64_t>(values->size())}, at::kDouble);
  std::copy(values->begin(), values->end(), all.data_ptr<double>());
  sum(all);
  std::copy_n(all.data_ptr<double>(), values->size(), values->begin());
}

// [2C + 1]: sum and sum of squares of each channel, and the elements per channel.
std::vector<double> Moments(const at::Tensor& x, const Planes& planes) {
  // Taken about a value of the channel itself, so that squares do not drown what they differ by.
  std::vector<float> about(static_cast<size_t>(planes.channels()));
  for (int64_t p = 0; p < planes.blocks; ++p) {
    std::copy_n(Data(x) + planes.At(p), planes.lanes, about.data() + planes.ChannelOf(p));
  }
  std::vector<double> sums =
      SumPlanes(planes, [&](auto rows, int64_t p, double* first, double* second) {
        rows.Moments(Data(x) + planes.At(p), planes.positions, about.data() + planes.ChannelOf(p),
                     first, second);
      });
  const auto count = static_cast<double>(planes.per_channel());
  const auto channels = static_cast<size_t>(planes.channels());
  for (size_t c = 0; c < channels; ++c) {
    const auto a = static_cast<double>(about[c]);
    sums[channels + c] += a * (2 * sums[c] + a * count);
    sums[c] += a * count;
  }
  sums.push_back(count);
  return sums;
}

}  // namespace

BatchNormStatistics BlockedStatistics(const at::Tensor& x, const BatchNormTensors& bn,
                                      double momentum, double epsilon, const SumOverRanks* sum) {
  const Planes planes(x);
  BatchNormStatistics result;
  result.mean = at::empty({planes.channels()}, x.options());
  result.inverse_std = at::empty({planes.channels()}, x.options());
  if (x.is_meta()) return result;
  std::vector<double> moments = Moments(x, planes);
  if (sum != nullptr) SumOver(*sum, &moments);
  const double count = moments.back();
  result.sum = sum;
  result.count = count;
  const auto channels = static_cast<size_t>(planes.channels());
  for (size_t c = 0; c < channels; ++c) {
    const double mean = moments[c] / count;
    const double variance = std::max(moments[channels + c] / count - mean * mean, 0.0);
    Data(result.mean)[c] = static_cast<float>(mean);
    Data(result.inverse_std)[c] = static_cast<float>(1 / std::sqrt(variance + epsilon));
    const auto move = [&](const at::Tensor& running, double to) {
      float& value = Data(running)[c];
      value = static_cast<float>((1 - momentum) * static_cast<double>(value) + momentum * to);
    };
    move(bn.running_mean, mean);
    move(bn.running_var, variance * count / std::max(count - 1, 1.0));
  }
  return result;
}

at::Tensor BlockedNormalised(const Normalisable& x, bool relu) {
  const at::Tensor result = at::empty_like(x.x);
  if (x.x.is_meta()) return result;
  const Planes planes(x.x);
  const Folded bn(x);
  ForEachPlane(planes, [&](auto rows, int64_t p) {
    rows.Normalise(Data(x.x) + planes.At(p), planes.positions, bn.At(planes.ChannelOf(p)), relu,
                   Data(result) + planes.At(p));
  });
  return result;
}

at::Tensor BlockedNormalisedSum(const Normalisable& a, const Normalisable& b, at::Tensor into) {
  const at::Tensor result = into.defined() ? std::move(into) : at::empty_like(a.x);
  if (a.x.is_meta()) return result;
  const Planes planes(a.x);
  const Folded bn_a(a);
  const Folded bn_b(b);
  ForEachPlane(planes, [&](auto rows, int64_t p) {
    const int64_t at = planes.At(p);
    const int64_t c = planes.ChannelOf(p);
    rows.NormaliseSum(Data(a.x) + at, planes.positions, bn_a.At(c), Data(b.x) + at, bn_b.At(c),
                      Data(result) + at);
  });
  return result;
}

void BlockedMaskBySum(at::Tensor& grad, const Normalisable& a, const Normalisable& b) {
  if (a.x.is_meta()) return;
  const Planes planes(a.x);
  const Folded bn_a(a);
  const Folded bn_b(b);
  ForEachPlane(planes, [&](auto rows, int64_t p) {
    const int64_t at = planes.At(p);
    const int64_t c = planes.ChannelOf(p);
    rows.MaskSum(Data(a.x) + at, planes.positions, bn_a.At(c), Data(b.x) + at, bn_b.At(c),
                 Data(grad) + at);
  });
}

BatchNormGradients BlockedNormBackward(const at::Tensor& grad, const Normalisable& x, bool relu,
                                       at::Tensor into) {
  const Planes planes(x.x);
  BatchNormGradients result;
  result.input = into.defined() ? std::move(into) : at::empty_like(x.x);
  result.gamma = at::empty({planes.channels()}, x.x.options());
  result.beta = at::empty({planes.channels()}, x.x.options());
  if (x.x.is_meta()) return result;
  const BatchNormStatistics& statistics = *x.statistics;
  const Folded bn(x);
  const float* mean = Data(statistics.mean);
  std::vector<double> sums =
      SumPlanes(planes, [&](auto rows, int64_t p, double* first, double* second) {
        const int64_t c = planes.ChannelOf(p);
        rows.GradientSums(Data(grad) + planes.At(p), Data(x.x) + planes.At(p), planes.positions,
                          mean + c, relu, bn.At(c), first, second);
      });
  const auto channels = static_cast<size_t>(planes.channels());
  const float* inverse_std = Data(statistics.inverse_std);
  for (size_t c = 0; c < channels; ++c) {
    Data(result.beta)[c] = static_cast<float>(sums[c]);
    Data(result.gamma)[c] =
        static_cast<float>(sums[channels + c] * static_cast<double>(inverse_std[c]));
  }
  if (statistics.sum != nullptr) SumOver(*statistics.sum, &sums);
  const double count =
      statistics.sum != nullptr ? statistics.count : static_cast<double>(planes.per_channel());
  std::vector<float> offset(channels);
  std::vector<float> slope(channels);
  std::vector<float> factor(channels);
  for (size_t c = 0; c < channels; ++c) {
    const auto scale = static_cast<double>(inverse_std[c]);
    factor[c] = inverse_std[c] * Data(x.bn->gamma)[c];
    if (!statistics.of_batch) continue;
    offset[c] = static_cast<float>(sums[c] / count);
    slope[c] = static_cast<float>(sums[channels + c] / count * scale * scale);
  }
  ForEachPlane(planes, [&](auto rows, int64_t p) {
    const int64_t at = planes.At(p);
    const int64_t c = planes.ChannelOf(p);
    rows.BackToInput(Data(grad) + at, Data(x.x) + at, planes.positions,
                     {mean + c, slope.data() + c, offset.data() + c, factor.data() + c}, relu,
                     bn.At(c), Data(result.input) + at);
  });
  return result;
}

}  // namespace kinefit
