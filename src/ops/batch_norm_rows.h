#pragma once

#include <cstdint>

// Inner loops of batch normalisation on the CPU: each works on one row, the contiguous elements of
// one channel of one sample. T is float, double or BFloat16Bits; P (double for double, else float)
// is what parameters and arithmetic are in. Sums are taken in double, in a fixed order.

namespace kinefit {

struct BFloat16Bits {
  uint16_t bits;
};

template <typename T>
struct RowParameter {
  using Type = float;
};
template <>
struct RowParameter<double> {
  using Type = double;
};

// value * scale + shift: what normalising with given statistics comes to.
template <typename P>
struct ScaleShift {
  P scale = 1;
  P shift = 0;
};

template <typename T>
double RowSum(const T* y, int64_t n);

// Sum of (y - mean)^2, each squared in P as ATen's kernel does it: then the statistics are ATen's
// to the bit, and no ReLU decides otherwise.
template <typename T>
double RowSquares(const T* y, int64_t n, typename RowParameter<T>::Type mean);

// out = y * s.scale + s.shift, then max(., 0) if `relu`. `out` may be `y`.
template <typename T>
void NormaliseRow(const T* y, int64_t n, ScaleShift<typename RowParameter<T>::Type> s, bool relu,
                  T* out);

// out = max(y * s + other * o, 0) with both scaled and shifted. `out` may be either.
template <typename T>
void NormaliseSumRow(const T* y, int64_t n, ScaleShift<typename RowParameter<T>::Type> s,
                     const T* other, ScaleShift<typename RowParameter<T>::Type> o, T* out);

// grad = 0 where NormaliseSumRow gave 0.
template <typename T>
void MaskSumRow(const T* y, int64_t n, ScaleShift<typename RowParameter<T>::Type> s, const T* other,
                ScaleShift<typename RowParameter<T>::Type> o, T* grad);

template <typename T>
struct GradientSums {
  typename RowParameter<T>::Type grad = 0;  // sum of grad
  typename RowParameter<T>::Type dot = 0;   // sum of grad * (y - mean)
};
// With `relu` grad counts only where y * s is above 0. Sums are taken in P, in the order and with
// the rounding of ATen's AVX2 kernel; `fused`: a product is rounded only with its sum, as the last
// few of a row always are.
template <typename T>
GradientSums<T> RowGradientSums(const T* grad, const T* y, int64_t n,
                                typename RowParameter<T>::Type mean, bool relu,
                                ScaleShift<typename RowParameter<T>::Type> s, bool fused);

template <typename T>
struct InputGradient {
  using P = typename RowParameter<T>::Type;
  P mean, slope, offset, inverse_std, gamma;
};
// out = (grad - offset - (y - mean) * slope) * inverse_std * gamma; with `relu` grad counts only
// where y * s is above 0. `out` may be `y` or `grad`.
template <typename T>
void InputGradientRow(const T* grad, const T* y, int64_t n, InputGradient<T> k, bool relu,
                      ScaleShift<typename RowParameter<T>::Type> s, T* out);

}  // namespace kinefit
