#include "ops/max_pool_rows.h"

#include <algorithm>
#include <cstring>

namespace kinefit {
namespace {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define KINEFIT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KINEFIT_CLONES
#endif
#define KINEFIT_INLINE inline __attribute__((always_inline))

constexpr int64_t kWindow = kPoolWindow;
constexpr int64_t kPadding = kPoolPadding;
constexpr int64_t kChunk = 64;  // results at once: they stay in registers and the nearest cache

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
KINEFIT_INLINE void Store(float x, BFloat16Bits* to) {  // one of the inputs: nothing is rounded
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  to->bits = static_cast<uint16_t>(bits >> 16);
}

// `n` results from windows that lie `stride` apart; of each, rows [row, rows) and columns [column,
// columns) are inside the plane `in`. `corner` is the place in it of the first window's corner,
// which may lie outside: a pointer may not.
template <typename T>
KINEFIT_INLINE void Windows(const T* in, int64_t corner, int64_t width, int64_t row, int64_t rows,
                            int64_t column, int64_t columns, int64_t stride, int64_t n, T* out,
                            uint8_t* places) {
  using Value = decltype(Load(T()));
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t count = std::min(kChunk, n - begin);
    Value best[kChunk];
    int32_t place[kChunk];
    const int64_t chunk = corner + begin * stride;
    const T* first = in + (chunk + row * width + column);
    for (int64_t k = 0; k < count; ++k) {
      best[k] = Load(first[k * stride]);
      place[k] = static_cast<int32_t>(row * kWindow + column);
    }
    for (int64_t dy = row; dy < rows; ++dy) {
      for (int64_t dx = column; dx < columns; ++dx) {
        const T* from = in + (chunk + dy * width + dx);
        const auto here = static_cast<int32_t>(dy * kWindow + dx);
        for (int64_t k = 0; k < count; ++k) {
          const Value value = Load(from[k * stride]);
          const bool take = value > best[k] || value != value;
          best[k] = take ? value : best[k];
          place[k] = take ? here : place[k];
        }
      }
    }
    for (int64_t k = 0; k < count; ++k) {
      Store(best[k], out + begin + k);
      places[begin + k] = static_cast<uint8_t>(place[k]);
    }
  }
}

template <typename T>
KINEFIT_INLINE void Plane(const T* in, const PoolPlane& p, int64_t stride, T* out,
                          uint8_t* places) {
  for (int64_t y = 0; y < p.out_height; ++y) {
    const int64_t top = y * stride - kPadding;
    const int64_t row = std::max<int64_t>(0, -top);
    const int64_t rows = std::min(kWindow, p.height - top);
    const int64_t corner = top * p.width - kPadding;
    // The first result, those whose windows are whole in width, and the one at the right edge.
    const int64_t whole = std::max<int64_t>(0, (p.width - kWindow + kPadding) / stride);
    const int64_t inside = std::min(whole, p.out_width - 1);
    Windows(in, corner, p.width, row, rows, kPadding, std::min(kWindow, p.width + kPadding), stride,
            1, out, places);
    Windows(in, corner + stride, p.width, row, rows, 0, kWindow, stride, inside, out + 1,
            places + 1);
    for (int64_t x = 1 + inside; x < p.out_width; ++x) {
      Windows(in, corner + x * stride, p.width, row, rows, 0,
              std::min(kWindow, p.width + kPadding - x * stride), stride, 1, out + x, places + x);
    }
    out += p.out_width;
    places += p.out_width;
  }
}

}  // namespace

// The clones cannot be templates; the usual strides are known to the compiler.
#define KINEFIT_POOL(T)                                                            \
  template <>                                                                      \
  KINEFIT_CLONES void MaxOfWindows<T>(const T* in, const PoolPlane& plane, T* out, \
                                      uint8_t* places) {                           \
    if (plane.stride == 1) return Plane(in, plane, 1, out, places);                \
    if (plane.stride == 2) return Plane(in, plane, 2, out, places);                \
    Plane(in, plane, plane.stride, out, places);                                   \
  }

KINEFIT_POOL(float)
KINEFIT_POOL(double)
KINEFIT_POOL(BFloat16Bits)

#undef KINEFIT_POOL

}  // namespace kinefit
