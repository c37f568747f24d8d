#include "transform/normalize.h"

#include <algorithm>
#include <cmath>
#include <opencv2/core.hpp>
#include <vector>

namespace kinefit {

Normalizer::Normalizer(const std::array<double, 3>& mean, const std::array<double, 3>& std) {
  for (size_t c = 0; c < 3; ++c) {
    mean_[c] = static_cast<float>(mean[c]);
    inverse_std_[c] = static_cast<float>(1 / std[c]);
  }
}

void Normalizer::Write(const PlanarImage& image, int64_t channel_stride, float* out) const {
  for (int64_t y = 0; y < image.height; ++y) {
    WriteRow(image.row(y), image.width, channel_stride, out + y * image.width);
  }
}

void Normalizer::WriteMirrored(const PlanarImage& image, int64_t channel_stride, float* out) const {
  std::vector<uint8_t> mirrored(static_cast<size_t>(3 * image.width));
  for (int64_t y = 0; y < image.height; ++y) {
    for (int64_t c = 0; c < 3; ++c) {
      const uint8_t* row = image.row(y) + c * image.width;
      std::reverse_copy(row, row + image.width, mirrored.begin() + c * image.width);
    }
    WriteRow(mirrored.data(), image.width, channel_stride, out + y * image.width);
  }
}

void Normalizer::WriteRow(const uint8_t* row, int64_t width, int64_t channel_stride,
                          float* out) const {
  for (size_t c = 0; c < 3; ++c) {
    const int64_t channel = static_cast<int64_t>(c);
    NormalizeRow(row + channel * width, width, mean_[c], inverse_std_[c],
                 out + channel * channel_stride);
  }
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
