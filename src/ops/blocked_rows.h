#pragma once

#include <cstdint>

// Inner loops of batch normalisation on feature maps in oneDNN's blocked layout: each works on one
// plane, `n` positions of kLanes channels that lie together. Whatever is per channel is an array of
// kLanes. Sums are taken in a fixed order.

namespace kinefit {

// y * scale + shift per lane; both null: y as it is.
struct LaneAffine {
  const float* scale = nullptr;
  const float* shift = nullptr;
};

template <int kLanes>
struct BlockedRows {
  // Adds the plane's sums of y - about and of (y - about)^2 to `sum` and `squares`.
  static void Moments(const float* y, int64_t n, const float* about, double* sum, double* squares);
  // out = bn(y), then max(., 0) if `relu`. `out` may be `y`.
  static void Normalise(const float* y, int64_t n, LaneAffine bn, bool relu, float* out);
  // out = max(bn(y) + other_bn(other), 0). `out` may be either.
  static void NormaliseSum(const float* y, int64_t n, LaneAffine bn, const float* other,
                           LaneAffine other_bn, float* out);
  // grad = 0 where NormaliseSum gave 0.
  static void MaskSum(const float* y, int64_t n, LaneAffine bn, const float* other,
                      LaneAffine other_bn, float* grad);
  // Adds the plane's sums of grad and of grad * (y - mean); with `relu` grad counts only where
  // bn(y) is above 0.
  static void GradientSums(const float* grad, const float* y, int64_t n, const float* mean,
                           bool relu, LaneAffine bn, double* sum, double* dot);
  // out = (grad - offset - (y - mean) * slope) * factor, grad counting as above. `out` may be
  // `grad` or `y`.
  struct InputGradient {
    const float *mean, *slope, *offset, *factor;
  };
  static void BackToInput(const float* grad, const float* y, int64_t n, InputGradient k, bool relu,
                          LaneAffine bn, float* out);
};

}  // namespace kinefit
