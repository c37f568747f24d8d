#pragma once

#include <cstdint>

#include "ops/batch_norm_rows.h"

namespace kinefit {

constexpr int64_t kPoolWindow = 3;
constexpr int64_t kPoolPadding = 1;

// One plane of MaxPool3x3 (ops/max_pool.h): sizes in pixels.
struct PoolPlane {
  int64_t height, width;  // of the input
  int64_t out_height, out_width;
  int64_t stride;
};

// The maximum of every 3x3 window, padded by one, and which of the window's nine pixels it is: of
// equals the first, of NaNs the last. T: float, double or BFloat16Bits.
template <typename T>
void MaxOfWindows(const T* in, const PoolPlane& plane, T* out, uint8_t* places);

}  // namespace kinefit
