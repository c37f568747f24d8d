#include "transform/pixel_rows.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
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

// The loops over colours go over so many pixels at a time, whose values stay in the nearest cache.
constexpr int64_t kChunk = 256;

struct Levels {
  int16_t r[kChunk];
  int16_t g[kChunk];
  int16_t b[kChunk];
};

KINEFIT_INLINE void Load(const uint8_t* planar, int64_t n, int64_t size, Levels* levels) {
  for (int64_t i = 0; i < size; ++i) levels->r[i] = planar[i];
  for (int64_t i = 0; i < size; ++i) levels->g[i] = planar[n + i];
  for (int64_t i = 0; i < size; ++i) levels->b[i] = planar[2 * n + i];
}

KINEFIT_INLINE void Store(const Levels& levels, int64_t n, int64_t size, uint8_t* planar) {
  for (int64_t i = 0; i < size; ++i) planar[i] = static_cast<uint8_t>(levels.r[i]);
  for (int64_t i = 0; i < size; ++i) planar[n + i] = static_cast<uint8_t>(levels.g[i]);
  for (int64_t i = 0; i < size; ++i) planar[2 * n + i] = static_cast<uint8_t>(levels.b[i]);
}

// Before the hue is turned, which may make several levels of one, colours change as exactly as the
// reference changes them.
KINEFIT_INLINE void ChangeExactly(const ColorMatrix& color, int64_t size, Levels* levels) {
  const std::array<float, 9> m = color.matrix;
  const std::array<float, 3> offset = color.offset;
  const auto level = [](float value) {
    return static_cast<int16_t>(static_cast<int>(Least(255.0F, Most(0.0F, value))));
  };
  for (int64_t i = 0; i < size; ++i) {
    const float r = static_cast<float>(levels->r[i]);
    const float g = static_cast<float>(levels->g[i]);
    const float b = static_cast<float>(levels->b[i]);
    levels->r[i] = level(m[0] * r + m[1] * g + m[2] * b + offset[0]);
    levels->g[i] = level(m[3] * r + m[4] * g + m[5] * b + offset[1]);
    levels->b[i] = level(m[6] * r + m[7] * g + m[8] * b + offset[2]);
  }
}

// value * weight / 32768, rounded: one instruction of x86 (pmulhrsw).
KINEFIT_INLINE int16_t RoundedShare(int16_t value, int16_t weight) {
  return static_cast<int16_t>((((value * weight) >> 14) + 1) >> 1);
}

KINEFIT_INLINE int16_t Between0And255(int value) {
  const int16_t level = static_cast<int16_t>(value);
  const int16_t low = level < 0 ? int16_t{0} : level;
  return low > 255 ? int16_t{255} : low;
}

KINEFIT_INLINE void Change(const FixedColorMatrix& color, int64_t size, Levels* levels) {
  const FixedColorMatrix f = color;
  const int16_t* m = f.matrix.data();
  const int16_t* offset = f.offset.data();
  for (int64_t i = 0; i < size; ++i) {
    const int16_t r = static_cast<int16_t>(levels->r[i] << 7);
    const int16_t g = static_cast<int16_t>(levels->g[i] << 7);
    const int16_t b = static_cast<int16_t>(levels->b[i] << 7);
    const auto level = [&](int c) {
      const int16_t sum =
          static_cast<int16_t>(RoundedShare(r, m[3 * c]) + RoundedShare(g, m[3 * c + 1]) +
                               RoundedShare(b, m[3 * c + 2]) + offset[c]);
      return Between0And255(static_cast<int16_t>(sum >> f.fraction));
    };
    const int16_t red = level(0);
    const int16_t green = level(1);
    const int16_t blue = level(2);
    levels->r[i] = red;
    levels->g[i] = green;
    levels->b[i] = blue;
  }
}

KINEFIT_INLINE int16_t Most16(int16_t a, int16_t b) { return a > b ? a : b; }
KINEFIT_INLINE int16_t Least16(int16_t a, int16_t b) { return a < b ? a : b; }

// A channel of a colour given by hue (in 30ths of a sixth), value and chroma; `shift`: 5, 3, 1 for
// red, green, blue.
KINEFIT_INLINE int16_t FromHue(uint16_t hue, int16_t value, int16_t chroma, uint16_t shift) {
  const uint16_t turned = static_cast<uint16_t>(hue + 30 * shift);
  const uint16_t around = static_cast<uint16_t>(turned - 180);  // large if there is none
  const int16_t k = static_cast<int16_t>(turned < around ? turned : around);
  const int16_t slope = Least16(k, static_cast<int16_t>(120 - k));
  const int16_t share = Most16(0, Least16(30, slope));
  // Divided by 30 and rounded: with 17477 / 2^19 exactly, for all that there can be.
  const int16_t product = static_cast<int16_t>(static_cast<int16_t>(chroma * share) + 14);
  const int16_t part = static_cast<int16_t>((product * 17477) >> 16);
  return static_cast<int16_t>(value - (part >> 3));
}

// H is rounded as in OpenCV's 8-bit HSV, by a fraction of 4096ths that it reads from a table. S
// would be rounded, too; that is worth half a level at most and is left out.
KINEFIT_INLINE void TurnHue(int turn, int64_t size, Levels* levels) {
  int16_t value[kChunk];
  int16_t range[kChunk];
  int16_t hue[kChunk];
  for (int64_t i = 0; i < size; ++i) {
    const int16_t r = levels->r[i];
    const int16_t g = levels->g[i];
    const int16_t b = levels->b[i];
    const int16_t most = Most16(r, Most16(g, b));
    const int16_t chroma = static_cast<int16_t>(most - Least16(r, Least16(g, b)));
    const int16_t from_blue = static_cast<int16_t>(r - g + 4 * chroma);
    const int16_t from_green = static_cast<int16_t>(b - r + 2 * chroma);
    const int16_t from_red = static_cast<int16_t>(g - b);
    const int16_t sector = most == g ? from_green : from_blue;
    value[i] = most;
    range[i] = chroma;
    hue[i] = most == r ? from_red : sector;
  }
  for (int64_t i = 0; i < size; ++i) {
    const float per_range = Whole(122880.0F / Most(static_cast<float>(range[i]), 1.0F) + 0.5F);
    constexpr int kAbove = 64;  // keeps what is cut off from being negative
    const float fraction =
        static_cast<float>(hue[i]) * per_range + static_cast<float>(2048 + (kAbove << 12));
    hue[i] = static_cast<int16_t>((static_cast<int>(fraction) >> 12) - kAbove);
  }
  const uint16_t steps = static_cast<uint16_t>(turn);
  for (int64_t i = 0; i < size; ++i) {
    const uint16_t found = static_cast<uint16_t>(hue[i]);  // large if it is negative
    const uint16_t above = static_cast<uint16_t>(found + 180);
    const uint16_t turned = static_cast<uint16_t>((found < above ? found : above) + steps);
    const uint16_t around = static_cast<uint16_t>(turned - 180);
    const uint16_t h = turned < around ? turned : around;
    levels->r[i] = FromHue(h, value[i], range[i], 5);
    levels->g[i] = FromHue(h, value[i], range[i], 3);
    levels->b[i] = FromHue(h, value[i], range[i], 1);
  }
}

}  // namespace

FixedColorMatrix::FixedColorMatrix(const ColorMatrix& exact) {
  double factor = 0;
  double level = 0;
  for (size_t c = 0; c < 3; ++c) {
    double sum = std::abs(exact.offset[c]) + 4;  // 4: for what is rounded
    for (size_t k = 3 * c; k < 3 * c + 3; ++k) {
      factor = std::max<double>(factor, std::abs(exact.matrix[k]));
      sum += 255 * std::abs(exact.matrix[k]);
    }
    level = std::max(level, sum);
  }
  constexpr double kMost = 32767;
  while (fraction > 0 && std::max(256 * factor, level) * (1 << fraction) > kMost) --fraction;
  const auto rounded = [&](double value) {
    return static_cast<int16_t>(std::lrint(std::clamp(value, -kMost, kMost)));
  };
  for (size_t k = 0; k < 9; ++k) matrix[k] = rounded(exact.matrix[k] * (256 << fraction));
  for (size_t c = 0; c < 3; ++c) offset[c] = rounded(exact.offset[c] * (1 << fraction));
}

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

KINEFIT_CLONES void TransformColorRow(const ColorMatrix* before, int turn,
                                      const FixedColorMatrix* after, int64_t n, uint8_t* planar) {
  Levels levels;
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t size = n - begin < kChunk ? n - begin : kChunk;
    Load(planar + begin, n, size, &levels);
    if (before != nullptr) ChangeExactly(*before, size, &levels);
    if (turn != kNoTurn) TurnHue(turn, size, &levels);
    if (after != nullptr) Change(*after, size, &levels);
    Store(levels, n, size, planar + begin);
  }
}

int64_t SumRow(const uint8_t* values, int64_t n) {
  int64_t total = 0;
  int64_t i = 0;
#ifdef __SSE2__
  Eight sums = _mm_setzero_si128();  // two int64
  for (; i + 16 <= n; i += 16) {
    const Eight bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + i));
    sums = _mm_add_epi64(sums, _mm_sad_epu8(bytes, _mm_setzero_si128()));
  }
  total = _mm_cvtsi128_si64(sums) + _mm_cvtsi128_si64(_mm_unpackhi_epi64(sums, sums));
#endif
  for (; i < n; ++i) total += values[i];
  return total;
}

KINEFIT_CLONES void NormalizeRow(const uint8_t* values, int64_t n, float mean, float inverse_std,
                                 float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = (static_cast<float>(values[i]) - mean) * inverse_std;
}

}  // namespace kinefit
