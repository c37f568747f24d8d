#include "ops/batch_norm_rows.h"

#include <cstring>

namespace kinefit {
namespace {

// One build for every x86-64: the loader picks the widest that the machine has. Multiplications and
// additions stay separate (-ffp-contract=off), so all of them give the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define KINEFIT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KINEFIT_CLONES
#endif
#define KINEFIT_INLINE inline __attribute__((always_inline))

constexpr int64_t kLanes = 16;

// Rounded once, as LibTorch's kernels do.
KINEFIT_INLINE float Fma(float x, float scale, float shift) {
  return __builtin_fmaf(x, scale, shift);
}
KINEFIT_INLINE double Fma(double x, double scale, double shift) {
  return __builtin_fma(x, scale, shift);
}

KINEFIT_INLINE float Load(float x) { return x; }
KINEFIT_INLINE double Load(double x) { return x; }
KINEFIT_INLINE float Load(BFloat16Bits x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

KINEFIT_INLINE void Store(float x, float* to) { *to = x; }
KINEFIT_INLINE void Store(double x, double* to) { *to = x; }
// To the nearest, ties to even, as LibTorch rounds.
KINEFIT_INLINE void Store(float x, BFloat16Bits* to) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  to->bits = static_cast<uint16_t>(x != x ? 0x7fc0U : rounded);
}

template <typename T>
KINEFIT_INLINE double Sum(const T* y, int64_t n) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) lanes[k] += static_cast<double>(Load(y[i + k]));
  }
  for (; i < n; ++i) lanes[0] += static_cast<double>(Load(y[i]));
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

template <typename T, typename P>
KINEFIT_INLINE double Squares(const T* y, int64_t n, P mean) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) {
      const P d = Load(y[i + k]) - mean;
      lanes[k] += static_cast<double>(d * d);
    }
  }
  for (; i < n; ++i) {
    const P d = Load(y[i]) - mean;
    lanes[0] += static_cast<double>(d * d);
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

template <typename T, typename P>
KINEFIT_INLINE void Normalise(const T* y, int64_t n, ScaleShift<P> s, bool relu, T* out) {
  if (relu) {
    for (int64_t i = 0; i < n; ++i) {
      const P z = Fma(Load(y[i]), s.scale, s.shift);
      Store(z < 0 ? P{0} : z, out + i);  // a NaN stays one
    }
  } else {
    for (int64_t i = 0; i < n; ++i) Store(Fma(Load(y[i]), s.scale, s.shift), out + i);
  }
}

template <typename T, typename P>
KINEFIT_INLINE void NormaliseSum(const T* y, int64_t n, ScaleShift<P> s, const T* other,
                                 ScaleShift<P> o, T* out) {
  for (int64_t i = 0; i < n; ++i) {
    const P z = (Fma(Load(y[i]), s.scale, s.shift)) + (Fma(Load(other[i]), o.scale, o.shift));
    Store(z < 0 ? P{0} : z, out + i);
  }
}

template <typename T, typename P>
KINEFIT_INLINE void MaskSum(const T* y, int64_t n, ScaleShift<P> s, const T* other, ScaleShift<P> o,
                            T* grad) {
  for (int64_t i = 0; i < n; ++i) {
    const P z = (Fma(Load(y[i]), s.scale, s.shift)) + (Fma(Load(other[i]), o.scale, o.shift));
    const P g = Load(grad[i]);
    Store(z <= 0 ? P{0} : g, grad + i);
  }
}

// What of `grad` gets through the ReLU behind the normalised y.
template <typename P>
KINEFIT_INLINE P Counted(P grad, P y, bool relu, ScaleShift<P> s) {
  return relu && Fma(y, s.scale, s.shift) <= 0 ? P{0} : grad;
}

template <bool kFused, typename T, typename P>
KINEFIT_INLINE GradientSums<T> SumGradients(const T* grad, const T* y, int64_t n, P mean, bool relu,
                                            ScaleShift<P> s) {
  constexpr int64_t kWide = 32 / static_cast<int64_t>(sizeof(P));  // elements of an AVX2 register
  GradientSums<T> sums;
  if (n < kWide) {
    for (int64_t i = 0; i < n; ++i) {
      const P g = Counted(Load(grad[i]), Load(y[i]), relu, s);
      sums.grad += g;
      sums.dot += (Load(y[i]) - mean) * g;
    }
    return sums;
  }
  P grads[kWide] = {};
  P dots[kWide] = {};
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide) {
    for (int64_t k = 0; k < kWide; ++k) {
      const P g = Counted(Load(grad[i + k]), Load(y[i + k]), relu, s);
      grads[k] += g;
      const P d = Load(y[i + k]) - mean;
      dots[k] = kFused ? Fma(d, g, dots[k]) : dots[k] + d * g;
    }
  }
  for (int64_t k = 0; i + k < n; ++k) {
    const P g = Counted(Load(grad[i + k]), Load(y[i + k]), relu, s);
    grads[k] += g;
    dots[k] = Fma(Load(y[i + k]) - mean, g, dots[k]);
  }
  for (int64_t half = kWide / 2; half > 0; half /= 2) {
    for (int64_t k = 0; k < half; ++k) {
      grads[k] += grads[k + half];
      dots[k] += dots[k + half];
    }
  }
  sums.grad = grads[0];
  sums.dot = dots[0];
  return sums;
}

template <typename T, typename P>
KINEFIT_INLINE void BackToInput(const T* grad, const T* y, int64_t n, InputGradient<T> k, bool relu,
                                ScaleShift<P> s, T* out) {
  for (int64_t i = 0; i < n; ++i) {
    const P v = Load(y[i]);
    const P g = Counted(Load(grad[i]), v, relu, s);
    Store(Fma(-(v - k.mean), k.slope, g - k.offset) * k.inverse_std * k.gamma, out + i);
  }
}

}  // namespace

// The clones cannot be templates: one set of functions for each type.
// NOLINTBEGIN(bugprone-macro-parentheses): T and P are types
#define KINEFIT_ROWS(T, P)                                                                         \
  template <>                                                                                      \
  KINEFIT_CLONES double RowSum<T>(const T* y, int64_t n) {                                         \
    return Sum(y, n);                                                                              \
  }                                                                                                \
  template <>                                                                                      \
  KINEFIT_CLONES double RowSquares<T>(const T* y, int64_t n, P mean) {                             \
    return Squares(y, n, mean);                                                                    \
  }                                                                                                \
  template <>                                                                                      \
  KINEFIT_CLONES void NormaliseRow<T>(const T* y, int64_t n, ScaleShift<P> s, bool relu, T* out) { \
    Normalise(y, n, s, relu, out);                                                                 \
  }                                                                                                \
  template <>                                                                                      \
  KINEFIT_CLONES void NormaliseSumRow<T>(const T* y, int64_t n, ScaleShift<P> s, const T* other,   \
                                         ScaleShift<P> o, T* out) {                                \
    NormaliseSum(y, n, s, other, o, out);                                                          \
  }                                                                                                \
  template <>                                                                                      \
  KINEFIT_CLONES void MaskSumRow<T>(const T* y, int64_t n, ScaleShift<P> s, const T* other,        \
                                    ScaleShift<P> o, T* grad) {                                    \
    MaskSum(y, n, s, other, o, grad);                                                              \
  }                                                                                                \
  template <>                                                                                      \
  KINEFIT_CLONES GradientSums<T> RowGradientSums<T>(const T* grad, const T* y, int64_t n, P mean,  \
                                                    bool relu, ScaleShift<P> s, bool fused) {      \
    return fused ? SumGradients<true>(grad, y, n, mean, relu, s)                                   \
                 : SumGradients<false>(grad, y, n, mean, relu, s);                                 \
  }                                                                                                \
  template <>                                                                                      \
  KINEFIT_CLONES void InputGradientRow<T>(const T* grad, const T* y, int64_t n,                    \
                                          InputGradient<T> k, bool relu, ScaleShift<P> s,          \
                                          T* out) {                                                \
    BackToInput(grad, y, n, k, relu, s, out);                                                      \
  }
// NOLINTEND(bugprone-macro-parentheses)

KINEFIT_ROWS(float, float)
KINEFIT_ROWS(double, double)
KINEFIT_ROWS(BFloat16Bits, float)

#undef KINEFIT_ROWS

}  // namespace kinefit
