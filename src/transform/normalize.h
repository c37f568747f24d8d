#pragma once

#include <array>
#include <cstdint>

#include "transform/resample.h"

namespace kinefit {

// (level - mean) / std per channel, in float32 (mmaction2 ActionDataPreprocessor).
class Normalizer {
 public:
  Normalizer(const std::array<double, 3>& mean, const std::array<double, 3>& std);

  // Writes an image as three planes [H, W], the planes `channel_stride` floats apart: one frame of
  // a [3, T, H, W] clip.
  void Write(const PlanarImage& image, int64_t channel_stride, float* out) const;
  // The same, mirrored left to right.
  void WriteMirrored(const PlanarImage& image, int64_t channel_stride, float* out) const;
  // The frame that Write() wrote there, exactly.
  cv::Mat Read(const float* planes, int64_t channel_stride, cv::Size size) const;

 private:
  void WriteRow(const uint8_t* row, int64_t width, int64_t channel_stride, float* out) const;

  std::array<float, 3> mean_;
  std::array<float, 3> inverse_std_;
};

}  // namespace kinefit
