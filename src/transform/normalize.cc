#include "transform/normalize.h"

#include <algorithm>

namespace kinefit {

Normalizer::Normalizer(const std::array<double, 3>& mean, const std::array<double, 3>& std) {
  for (size_t c = 0; c < 3; ++c) {
    for (size_t level = 0; level < 256; ++level) {
      table_[c][level] =
          (static_cast<float>(level) - static_cast<float>(mean[c])) / static_cast<float>(std[c]);
    }
  }
}

void Normalizer::Write(const cv::Mat& frame, int64_t channel_stride, float* out) const {
  for (int y = 0; y < frame.rows; ++y) {
    const uint8_t* in = frame.ptr<uint8_t>(y);
    float* red = out + static_cast<int64_t>(y) * frame.cols;
    float* green = red + channel_stride;
    float* blue = green + channel_stride;
    for (int x = 0; x < frame.cols; ++x, in += 3) {
      red[x] = table_[0][in[0]];
      green[x] = table_[1][in[1]];
      blue[x] = table_[2][in[2]];
    }
  }
}

cv::Mat Normalizer::Read(const float* planes, int64_t channel_stride, cv::Size size) const {
  cv::Mat frame(size, CV_8UC3);
  for (int y = 0; y < size.height; ++y) {
    uint8_t* out = frame.ptr<uint8_t>(y);
    const float* row = planes + static_cast<int64_t>(y) * size.width;
    for (int x = 0; x < size.width; ++x, out += 3) {
      for (int64_t c = 0; c < 3; ++c) {
        const auto& levels = table_[static_cast<size_t>(c)];
        const float value = row[c * channel_stride + x];
        const auto place = std::lower_bound(levels.begin(), levels.end(), value);
        const auto level = std::min<int64_t>(place - levels.begin(), 255);
        out[c] = static_cast<uint8_t>(level);
      }
    }
  }
  return frame;
}

}  // namespace kinefit
