#include "transform/pixel_rows.h"

#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

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

// Eight int16, as pixel pairs or weights.
#ifdef __SSE2__
using Eight = __m128i;

KINEFIT_INLINE Eight LoadEight(const int16_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

// Red, green, blue and 0 as int32, with fractions.
template <int kPairs>
KINEFIT_INLINE Eight WeightedPixel(const int16_t* pairs, const int32_t* index,
                                   const int16_t* weight) {
  Eight sum =
      _mm_madd_epi16(LoadEight(pairs + 8 * static_cast<int64_t>(index[0])), LoadEight(weight));
  if (kPairs == 2) {
    sum = _mm_add_epi32(sum, _mm_madd_epi16(LoadEight(pairs + 8 * static_cast<int64_t>(index[1])),
                                            LoadEight(weight + 8)));
  }
  constexpr int kShift = 14 - kFractionBits;
  return _mm_srai_epi32(_mm_add_epi32(sum, _mm_set1_epi32(1 << (kShift - 1))), kShift);
}

// Four pixels: red and green into one vector of four and four, blue into the lower half of another.
template <int kPairs>
KINEFIT_INLINE void FourPixels(const int16_t* pairs, const int32_t* index, const int16_t* weight,
                               Eight* red_green, Eight* blue) {
  constexpr int kWeights = 8 * kPairs;
  const Eight ab = _mm_packs_epi32(WeightedPixel<kPairs>(pairs, index, weight),
                                   WeightedPixel<kPairs>(pairs, index + kPairs, weight + kWeights));
  const Eight cd =
      _mm_packs_epi32(WeightedPixel<kPairs>(pairs, index + 2 * kPairs, weight + 2 * kWeights),
                      WeightedPixel<kPairs>(pairs, index + 3 * kPairs, weight + 3 * kWeights));
  const Eight low = _mm_unpacklo_epi16(ab, cd);
  const Eight high = _mm_unpackhi_epi16(ab, cd);
  *red_green = _mm_unpacklo_epi16(low, high);
  *blue = _mm_unpackhi_epi16(low, high);
}

KINEFIT_INLINE void StoreEight(Eight eight, int16_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), eight);
}
#endif

template <int kPairs>
KINEFIT_INLINE void Resample(const int16_t* pairs, const PairTaps& taps, int16_t* planar) {
  const int64_t n = taps.n;
  int64_t i = 0;
#ifdef __SSE2__
  for (; i + 8 <= n; i += 8) {
    const int32_t* index = taps.index + i * kPairs;
    const int16_t* weight = taps.weight + i * kPairs * 8;
    Eight red_green[2];
    Eight blue[2];
    FourPixels<kPairs>(pairs, index, weight, &red_green[0], &blue[0]);
    FourPixels<kPairs>(pairs, index + 4 * kPairs, weight + 32 * kPairs, &red_green[1], &blue[1]);
    StoreEight(_mm_unpacklo_epi64(red_green[0], red_green[1]), planar + i);
    StoreEight(_mm_unpackhi_epi64(red_green[0], red_green[1]), planar + n + i);
    StoreEight(_mm_unpacklo_epi64(blue[0], blue[1]), planar + 2 * n + i);
  }
#endif
  constexpr int kShift = 14 - kFractionBits;
  for (; i < n; ++i) {
    for (int64_t c = 0; c < 3; ++c) {
      int32_t sum = 1 << (kShift - 1);
      for (int64_t k = i * kPairs; k < (i + 1) * kPairs; ++k) {
        const int16_t* pair = pairs + 8 * static_cast<int64_t>(taps.index[k]) + 2 * c;
        sum += pair[0] * taps.weight[8 * k] + pair[1] * taps.weight[8 * k + 1];
      }
      planar[c * n + i] = static_cast<int16_t>(sum >> kShift);
    }
  }
}

// value * weight / 65536, rounded down: one instruction of x86 (pmulhw).
KINEFIT_INLINE int16_t Share(int16_t value, int16_t weight) {
  return static_cast<int16_t>((value * weight) >> 16);
}

template <int kRows>
KINEFIT_INLINE void Blend(const int16_t* const* rows, const int16_t* weights, int64_t n,
                          uint8_t* __restrict out) {
  const int16_t* a = rows[0];
  const int16_t* b = rows[kRows > 1 ? 1 : 0];
  const int16_t* c = rows[kRows > 2 ? 2 : 0];
  const int16_t* d = rows[kRows > 3 ? 3 : 0];
  const int16_t wa = weights[0];
  const int16_t wb = weights[kRows > 1 ? 1 : 0];
  const int16_t wc = weights[kRows > 2 ? 2 : 0];
  const int16_t wd = weights[kRows > 3 ? 3 : 0];
  // Of 32767ths 65536ths are taken: a bit of fraction less. Each share lost half of its last one.
  constexpr int kShift = kFractionBits - 1;
  constexpr int kHalf = (1 << (kShift - 1)) + kRows / 2;
  for (int64_t i = 0; i < n; ++i) {
    int16_t sum = static_cast<int16_t>(Share(a[i], wa) + kHalf);
    if (kRows > 1) sum = static_cast<int16_t>(sum + Share(b[i], wb));
    if (kRows > 2) sum = static_cast<int16_t>(sum + Share(c[i], wc));
    if (kRows > 3) sum = static_cast<int16_t>(sum + Share(d[i], wd));
    out[i] = static_cast<uint8_t>(sum >> kShift);
  }
}

KINEFIT_INLINE float Least(float a, float b) { return a < b ? a : b; }
KINEFIT_INLINE float Most(float a, float b) { return a > b ? a : b; }
// Of what is not negative.
KINEFIT_INLINE float Whole(float value) { return static_cast<float>(static_cast<int>(value)); }

struct Rgb {
  float r, g, b;
};

KINEFIT_INLINE Rgb Transform(const ColorMatrix& color, Rgb in) {
  const std::array<float, 9>& m = color.matrix;
  const auto level = [](float value) { return Whole(Least(255.0F, Most(0.0F, value))); };
  return {level(m[0] * in.r + m[1] * in.g + m[2] * in.b + color.offset[0]),
          level(m[3] * in.r + m[4] * in.g + m[5] * in.b + color.offset[1]),
          level(m[6] * in.r + m[7] * in.g + m[8] * in.b + color.offset[2])};
}

// A channel of a colour given by hue, value and chroma; `shift`: 5, 3, 1 for red, green, blue.
KINEFIT_INLINE float FromHue(float sixths, float value, float chroma, float shift) {
  float k = sixths + shift;
  k = k >= 6 ? k - 6 : k;
  const float share = Most(0.0F, Least(1.0F, Least(k, 4 - k)));
  return Whole(value - chroma * share + 0.5F);
}

// H is rounded as in OpenCV's 8-bit HSV, by a fraction of 4096ths that it reads from a table. S
// would be rounded, too; that is worth half a level at most and is left out.
KINEFIT_INLINE Rgb TurnHue(float turn, Rgb in) {
  const float value = Most(in.r, Most(in.g, in.b));
  const float range = value - Least(in.r, Least(in.g, in.b));
  float sector = in.r - in.g + 4 * range;
  sector = value == in.g ? in.b - in.r + 2 * range : sector;
  sector = value == in.r ? in.g - in.b : sector;
  const float per_range = Whole(122880.0F / Most(range, 1.0F) + 0.5F);  // 30 << 12
  constexpr int kAbove = 64;  // keeps what is cut off from being negative
  const float fraction = sector * per_range + static_cast<float>(2048 + (kAbove << 12));
  float hue = static_cast<float>((static_cast<int>(fraction) >> 12) - kAbove);
  hue = hue < 0 ? hue + 180 : hue;
  hue += turn;
  hue = hue >= 180 ? hue - 180 : hue;
  const float sixths = hue * (6.0F / 180.0F);
  return {FromHue(sixths, value, range, 5), FromHue(sixths, value, range, 3),
          FromHue(sixths, value, range, 1)};
}

template <bool kBefore, bool kTurn, bool kAfter>
KINEFIT_INLINE void TransformColors(const ColorMatrix* before, int turn, const ColorMatrix* after,
                                    int64_t n, uint8_t* planar) {
  const ColorMatrix first = kBefore ? *before : ColorMatrix();
  const ColorMatrix last = kAfter ? *after : ColorMatrix();
  const float steps = static_cast<float>(turn);
  constexpr int64_t kChunk = 256;
  float red[kChunk];
  float green[kChunk];
  float blue[kChunk];
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t size = n - begin < kChunk ? n - begin : kChunk;
    uint8_t* r = planar + begin;
    uint8_t* g = r + n;
    uint8_t* b = g + n;
    for (int64_t i = 0; i < size; ++i) red[i] = static_cast<float>(r[i]);
    for (int64_t i = 0; i < size; ++i) green[i] = static_cast<float>(g[i]);
    for (int64_t i = 0; i < size; ++i) blue[i] = static_cast<float>(b[i]);
    for (int64_t i = 0; i < size; ++i) {
      Rgb rgb = {red[i], green[i], blue[i]};
      if (kBefore) rgb = Transform(first, rgb);
      if (kTurn) rgb = TurnHue(steps, rgb);
      if (kAfter) rgb = Transform(last, rgb);
      red[i] = rgb.r;
      green[i] = rgb.g;
      blue[i] = rgb.b;
    }
    for (int64_t i = 0; i < size; ++i) r[i] = static_cast<uint8_t>(static_cast<int>(red[i]));
    for (int64_t i = 0; i < size; ++i) g[i] = static_cast<uint8_t>(static_cast<int>(green[i]));
    for (int64_t i = 0; i < size; ++i) b[i] = static_cast<uint8_t>(static_cast<int>(blue[i]));
  }
}

}  // namespace

KINEFIT_CLONES void PairRow(const uint8_t* rgb, int64_t n, int16_t* pairs) {
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  int64_t i = 0;
  for (; i + 6 <= n; ++i) {  // 16 bytes are 5 pixels and one byte
    Bytes bytes;
    std::memcpy(&bytes, rgb + 3 * i, sizeof bytes);
    const Bytes paired = __builtin_shufflevector(bytes, Bytes{}, 0, 16, 3, 16, 1, 16, 4, 16, 2, 16,
                                                 5, 16, 16, 16, 16, 16);
    std::memcpy(pairs + 8 * i, &paired, sizeof paired);
  }
  for (; i <= n; ++i) {
    for (int64_t c = 0; c < 4; ++c) {
      const bool colour = c < 3;
      pairs[8 * i + 2 * c] = colour && i < n ? rgb[3 * i + c] : int16_t{0};
      pairs[8 * i + 2 * c + 1] = colour && i + 1 < n ? rgb[3 * i + 3 + c] : int16_t{0};
    }
  }
}

KINEFIT_CLONES void ResampleRow(const int16_t* pairs, const PairTaps& taps, int16_t* planar) {
  if (taps.pairs == 1) return Resample<1>(pairs, taps, planar);
  Resample<2>(pairs, taps, planar);
}

KINEFIT_CLONES void BlendRows(const int16_t* const* rows, const int16_t* weights, int64_t count,
                              int64_t n, uint8_t* out) {
  if (count == 1) return Blend<1>(rows, weights, n, out);
  if (count == 2) return Blend<2>(rows, weights, n, out);
  if (count == 3) return Blend<3>(rows, weights, n, out);
  Blend<4>(rows, weights, n, out);
}

KINEFIT_CLONES void TransformColorRow(const ColorMatrix* before, int turn, const ColorMatrix* after,
                                      int64_t n, uint8_t* planar) {
  if (turn == kNoTurn) {
    if (before != nullptr) TransformColors<true, false, false>(before, 0, nullptr, n, planar);
    if (after != nullptr) TransformColors<true, false, false>(after, 0, nullptr, n, planar);
  } else if (before != nullptr && after != nullptr) {
    TransformColors<true, true, true>(before, turn, after, n, planar);
  } else if (before != nullptr) {
    TransformColors<true, true, false>(before, turn, nullptr, n, planar);
  } else if (after != nullptr) {
    TransformColors<false, true, true>(nullptr, turn, after, n, planar);
  } else {
    TransformColors<false, true, false>(nullptr, turn, nullptr, n, planar);
  }
}

KINEFIT_CLONES int64_t SumRow(const uint8_t* values, int64_t n) {
  int64_t total = 0;
  for (int64_t i = 0; i < n;) {
    int32_t sum = 0;
    const int64_t end = n - i > 65536 ? i + 65536 : n;
    for (; i < end; ++i) sum += values[i];
    total += sum;
  }
  return total;
}

KINEFIT_CLONES void NormalizeRow(const uint8_t* values, int64_t n, float mean, float inverse_std,
                                 float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = (static_cast<float>(values[i]) - mean) * inverse_std;
}

}  // namespace kinefit
