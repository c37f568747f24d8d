#pragma once

#include <array>
#include <cstdint>

namespace kinefit {

// Loops over rows of pixels, built for several instruction sets (pixel_rows.cc); the widest that
// the machine has is picked when the program starts, and all give the same bits. Planar rows: `n`
// values of red, then of green, then of blue, one behind the other.

// Levels on the way through a resize have seven bits of fraction.
constexpr int kFractionBits = 7;

// n RGB pixels to n + 1 pairs of neighbours, eight int16 each: red of pixels i and i + 1, green,
// blue, 0, 0. What lies beyond the last pixel is 0. Reads no byte beyond the n pixels.
void PairRow(const uint8_t* rgb, int64_t n, int16_t* pairs);

// n outputs along a row, each the weighted sum of one or two pairs of neighbours.
struct PairTaps {
  const int32_t* index = nullptr;   // [n, pairs] first pixel of each pair
  const int16_t* weight = nullptr;  // [n, pairs, 8]: of pixels i and i + 1, four times; 16384 = 1
  int64_t pairs = 1;                // 1 or 2
  int64_t n = 0;
};
// A row of pairs to a planar row of taps.n pixels, with fractions.
void ResampleRow(const int16_t* pairs, const PairTaps& taps, int16_t* planar);

// n values that are weighted sums of `count` (1 to 4) rows with fractions, rounded to levels.
// Weights: 32767 = 1.
void BlendRows(const int16_t* const* rows, const int16_t* weights, int64_t count, int64_t n,
               uint8_t* out);

// RGB -> matrix * RGB + offset, clipped to 0..255, fractions cut off.
struct ColorMatrix {
  std::array<float, 9> matrix;
  std::array<float, 3> offset;
};

// The same in 16 bits: results that are not within a tenth of a level of a whole one are the same,
// as long as no colour can become brighter than 511 before it is clipped.
struct FixedColorMatrix {
  explicit FixedColorMatrix(const ColorMatrix& exact);

  std::array<int16_t, 9> matrix;  // in units of 1 / 256 / 2^fraction
  std::array<int16_t, 3> offset;  // in units of 1 / 2^fraction
  int fraction = 6;               // bits; fewer for matrices with large results
};

constexpr int kNoTurn = -1;

// Applies `before`, then turns the hue by `turn` (0..179) of OpenCV's 180 steps, then applies
// `after`, each unless it is null or kNoTurn. Turning is what converting to 8-bit HSV, adding to H
// and converting back does, within one level; it changes colours even if nothing is added. As it
// can make several levels of one, what comes before it is exact.
void TransformColorRow(const ColorMatrix* before, int turn, const FixedColorMatrix* after,
                       int64_t n, uint8_t* planar);

int64_t SumRow(const uint8_t* values, int64_t n);

// (value - mean) * inverse_std
void NormalizeRow(const uint8_t* values, int64_t n, float mean, float inverse_std, float* out);

}  // namespace kinefit
