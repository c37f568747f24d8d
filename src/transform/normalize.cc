#include "transform/normalize.h"

#include <algorithm>
#include <cmath>
#include <opencv2/core.hpp>

namespace kinefit {

Normalizer::Normalizer(const std::array<double, 3>& mean, const std::array<double, 3>& std) {
  for (size_t c = 0; c < 3; ++c) {
    mean_[c] = static_cast<float>(mean[c]);
    inverse_std_[c] = static_cast<float>(1 / std[c]);
  }
}

void Normalizer::WriteRow(const PlanarImage& image, int64_t y, int64_t channel_stride,
                          float* planes) const {
  const int64_t width = image.width;
  for (size_t c = 0; c < 3; ++c) {
    const int64_t channel = static_cast<int64_t>(c);
    NormalizeRow(image.row(y) + channel * width, width, mean_[c], inverse_std_[c],
                 planes + channel * channel_stride + y * width);
  }
}

void Normalizer::WriteMirroredRow(const PlanarImage& image, int64_t y, int64_t channel_stride,
                                  float* planes) const {
  WriteRow(image, y, channel_stride, planes);
  for (int64_t c = 0; c < 3; ++c) {
    float* row = planes + c * channel_stride + y * image.width;
    std::reverse(row, row + image.width);
  }
}

void Normalizer::Write(const PlanarImage& image, int64_t channel_stride, float* planes) const {
  for (int64_t y = 0; y < image.height; ++y) WriteRow(image, y, channel_stride, planes);
}

cv::Mat Normalizer::Read(const float* planes, int64_t channel_stride, cv::Size size) const {
  cv::Mat frame(size, CV_8UC3);
  for (int y = 0; y < size.height; ++y) {
    uint8_t* out = frame.ptr<uint8_t>(y);
    const float* row = planes + static_cast<int64_t>(y) * size.width;
    for (int x = 0; x < size.width; ++x, out += 3) {
      for (size_t c = 0; c < 3; ++c) {
        const float value = row[static_cast<int64_t>(c) * channel_stride + x];
        const float level = std::round(value / inverse_std_[c] + mean_[c]);
        out[c] = static_cast<uint8_t>(std::clamp(level, 0.0F, 255.0F));
      }
    }
  }
  return frame;
}

}  // namespace kinefit
