#include "ops/blocked_rows.h"

#include <algorithm>

namespace kinefit {
namespace {

// One build for every x86-64, as in batch_norm_rows.cc.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define KINEFIT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KINEFIT_CLONES
#endif
#define KINEFIT_INLINE inline __attribute__((always_inline))

// All lanes of one position. Loops over lanes are not reliably made into vectors by compilers.
template <int kLanes>
struct Lanes {
  typedef float Float __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
  typedef double Double __attribute__((vector_size(kLanes * 8)));
  static constexpr int64_t kWidth = kLanes;
};
template <typename L>
using F = typename L::Float;
template <typename L>
using D = typename L::Double;

// Helpers take vectors by reference: by value the calling convention would depend on the clone.
template <typename L>
KINEFIT_INLINE const F<L>& At(const float* y, int64_t position) {
  return reinterpret_cast<const F<L>*>(y)[position];
}
template <typename L>
KINEFIT_INLINE F<L>& At(float* y, int64_t position) {
  return reinterpret_cast<F<L>*>(y)[position];
}

// A LaneAffine in registers.
template <typename L>
struct Affine {
  KINEFIT_INLINE explicit Affine(LaneAffine a) : scale(F<L>{} + 1), shift(F<L>{}) {
    if (a.scale == nullptr) return;
    scale = At<L>(a.scale, 0);
    shift = At<L>(a.shift, 0);
  }
  F<L> scale, shift;
};

template <typename L>
KINEFIT_INLINE void AddTo(const F<L>& values, double* sum) {
  for (int64_t k = 0; k < L::kWidth; ++k) sum[k] += static_cast<double>(values[k]);
}

// Positions summed up in float before the sum goes into a double.
constexpr int64_t kRun = 64;

template <typename L>
KINEFIT_INLINE void Moments(const float* y, int64_t n, const float* about, double* sum,
                            double* squares) {
  const F<L> a = At<L>(about, 0);
  D<L> s = {};
  D<L> q = {};
  for (int64_t i = 0; i < n; ++i) {
    const F<L> d = At<L>(y, i) - a;
    const D<L> wide = __builtin_convertvector(d, D<L>);
    s += wide;
    q += wide * wide;
  }
  for (int64_t k = 0; k < L::kWidth; ++k) {
    sum[k] += s[k];
    squares[k] += q[k];
  }
}

template <typename L>
KINEFIT_INLINE void Normalise(const float* y, int64_t n, LaneAffine bn, bool relu, float* out) {
  const Affine<L> a(bn);
  if (!relu) {
    for (int64_t i = 0; i < n; ++i) At<L>(out, i) = At<L>(y, i) * a.scale + a.shift;
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const F<L> z = At<L>(y, i) * a.scale + a.shift;
    At<L>(out, i) = z < 0 ? F<L>{} : z;
  }
}

template <typename L>
KINEFIT_INLINE void NormaliseSum(const float* y, int64_t n, LaneAffine bn, const float* other,
                                 LaneAffine other_bn, float* out) {
  const Affine<L> a(bn);
  const Affine<L> b(other_bn);
  for (int64_t i = 0; i < n; ++i) {
    const F<L> p = At<L>(y, i) * a.scale + a.shift;
    const F<L> q = At<L>(other, i) * b.scale + b.shift;
    const F<L> z = p + q;
    At<L>(out, i) = z < 0 ? F<L>{} : z;
  }
}

template <typename L>
KINEFIT_INLINE void MaskSum(const float* y, int64_t n, LaneAffine bn, const float* other,
                            LaneAffine other_bn, float* grad) {
  const Affine<L> a(bn);
  const Affine<L> b(other_bn);
  for (int64_t i = 0; i < n; ++i) {
    const F<L> p = At<L>(y, i) * a.scale + a.shift;
    const F<L> q = At<L>(other, i) * b.scale + b.shift;
    const F<L> z = p + q;
    At<L>(grad, i) = z <= 0 ? F<L>{} : At<L>(grad, i);
  }
}

template <typename L, bool kRelu>
KINEFIT_INLINE void GradientSums(const float* grad, const float* y, int64_t n, const float* mean,
                                 const Affine<L>& a, double* sum, double* dot) {
  const F<L> m = At<L>(mean, 0);
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = std::min(begin + kRun, n);
    F<L> s = {};
    F<L> d = {};
    for (int64_t i = begin; i < end; ++i) {
      const F<L> v = At<L>(y, i);
      F<L> g = At<L>(grad, i);
      if (kRelu) g = v * a.scale + a.shift <= 0 ? F<L>{} : g;
      s += g;
      d += g * (v - m);
    }
    AddTo<L>(s, sum);
    AddTo<L>(d, dot);
  }
}

template <typename L, bool kRelu>
KINEFIT_INLINE void BackToInput(const float* grad, const float* y, int64_t n,
                                typename BlockedRows<L::kWidth>::InputGradient k,
                                const Affine<L>& a, float* out) {
  const F<L> mean = At<L>(k.mean, 0);
  const F<L> slope = At<L>(k.slope, 0);
  const F<L> offset = At<L>(k.offset, 0);
  const F<L> factor = At<L>(k.factor, 0);
  for (int64_t i = 0; i < n; ++i) {
    const F<L> v = At<L>(y, i);
    F<L> g = At<L>(grad, i);
    if (kRelu) g = v * a.scale + a.shift <= 0 ? F<L>{} : g;
    At<L>(out, i) = (g - offset - (v - mean) * slope) * factor;
  }
}

}  // namespace

// The clones cannot be templates: one set of functions for each number of lanes.
#define KINEFIT_BLOCKED(B)                                                                       \
  template <>                                                                                    \
  KINEFIT_CLONES void BlockedRows<B>::Moments(const float* y, int64_t n, const float* about,     \
                                              double* sum, double* squares) {                    \
    kinefit::Moments<Lanes<B>>(y, n, about, sum, squares);                                       \
  }                                                                                              \
  template <>                                                                                    \
  KINEFIT_CLONES void BlockedRows<B>::Normalise(const float* y, int64_t n, LaneAffine bn,        \
                                                bool relu, float* out) {                         \
    kinefit::Normalise<Lanes<B>>(y, n, bn, relu, out);                                           \
  }                                                                                              \
  template <>                                                                                    \
  KINEFIT_CLONES void BlockedRows<B>::NormaliseSum(const float* y, int64_t n, LaneAffine bn,     \
                                                   const float* other, LaneAffine other_bn,      \
                                                   float* out) {                                 \
    kinefit::NormaliseSum<Lanes<B>>(y, n, bn, other, other_bn, out);                             \
  }                                                                                              \
  template <>                                                                                    \
  KINEFIT_CLONES void BlockedRows<B>::MaskSum(const float* y, int64_t n, LaneAffine bn,          \
                                              const float* other, LaneAffine other_bn,           \
                                              float* grad) {                                     \
    kinefit::MaskSum<Lanes<B>>(y, n, bn, other, other_bn, grad);                                 \
  }                                                                                              \
  template <>                                                                                    \
  KINEFIT_CLONES void BlockedRows<B>::GradientSums(const float* grad, const float* y, int64_t n, \
                                                   const float* mean, bool relu, LaneAffine bn,  \
                                                   double* sum, double* dot) {                   \
    const Affine<Lanes<B>> a(bn);                                                                \
    if (relu) {                                                                                  \
      kinefit::GradientSums<Lanes<B>, true>(grad, y, n, mean, a, sum, dot);                      \
    } else {                                                                                     \
      kinefit::GradientSums<Lanes<B>, false>(grad, y, n, mean, a, sum, dot);                     \
    }                                                                                            \
  }                                                                                              \
  template <>                                                                                    \
  KINEFIT_CLONES void BlockedRows<B>::BackToInput(const float* grad, const float* y, int64_t n,  \
                                                  InputGradient k, bool relu, LaneAffine bn,     \
                                                  float* out) {                                  \
    const Affine<Lanes<B>> a(bn);                                                                \
    if (relu) {                                                                                  \
      kinefit::BackToInput<Lanes<B>, true>(grad, y, n, k, a, out);                               \
    } else {                                                                                     \
      kinefit::BackToInput<Lanes<B>, false>(grad, y, n, k, a, out);                              \
    }                                                                                            \
  }

KINEFIT_BLOCKED(16)

#undef KINEFIT_BLOCKED

}  // namespace kinefit
