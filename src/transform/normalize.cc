#include "transform/normalize.h"

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

}  // namespace kinefit
