#pragma once

#include <array>
#include <cstdint>

#include "transform/resample.h"

namespace kinefit {

// (level - mean) / std per channel, in float32 (mmaction2 ActionDataPreprocessor).
class Normalizer {
 public:
  Normalizer(const std::array<double, 3>& mean, const std::array<double, 3>& std);

  // Writes row `y` of an image into three planes [H, W] that are `channel_stride` floats apart: of
  // one frame of a [3, T, H, W] clip.
  void WriteRow(const PlanarImage& image, int64_t y, int64_t channel_stride, float* planes) const;
  // The same, mirrored left to right.
  void WriteMirroredRow(const PlanarImage& image, int64_t y, int64_t channel_stride,
                        float* planes) const;
  // All rows.
  void Write(const PlanarImage& image, int64_t channel_stride, float* planes) const;
  // The frame that was written there, exactly.
  cv::Mat Read(const float* planes, int64_t channel_stride, cv::Size size) const;

 private:
  std::array<float, 3> mean_;
  std::array<float, 3> inverse_std_;
};

}  // namespace kinefit
