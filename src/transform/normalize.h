#pragma once

#include <array>
#include <opencv2/core.hpp>

namespace kinefit {

// (level - mean) / std per channel, in float32 (mmaction2 ActionDataPreprocessor).
class Normalizer {
 public:
  Normalizer(const std::array<double, 3>& mean, const std::array<double, 3>& std);

  // Writes an RGB CV_8UC3 frame as three planes [H, W], the planes `channel_stride` floats apart:
  // one frame of a [3, T, H, W] clip.
  void Write(const cv::Mat& frame, int64_t channel_stride, float* out) const;
  // The frame that Write() wrote there, exactly.
  cv::Mat Read(const float* planes, int64_t channel_stride, cv::Size size) const;

 private:
  std::array<std::array<float, 256>, 3> table_;  // a value for each of the 256 levels
};

}  // namespace kinefit
