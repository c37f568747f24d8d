#include "transform/color_jitter.h"

#include <algorithm>
#include <cstdint>
#include <opencv2/imgproc.hpp>

namespace kinefit {
namespace {

constexpr std::array<double, 3> kGray = {0.2989, 0.587, 0.114};

// RGB -> matrix * RGB + offset. Brightness, contrast and saturation are all of this kind, also
// one after the other, so that a frame is touched once however many of them there are.
class AffineColor {
 public:
  bool identity() const { return identity_; }

  void Brightness(double factor) {
    for (auto& row : matrix_) {
      for (double& value : row) value *= factor;
    }
    for (double& value : offset_) value *= factor;
    identity_ = identity_ && factor == 1;
  }

  // Blends with the mean grey of the frame so far; `mean_rgb`: of the frame it started from.
  void Contrast(double factor, const cv::Scalar& mean_rgb) {
    double mean_gray = 0;
    for (size_t c = 0; c < 3; ++c) {
      double channel = offset_[c];
      for (size_t k = 0; k < 3; ++k) channel += matrix_[c][k] * mean_rgb[static_cast<int>(k)];
      mean_gray += kGray[c] * channel;
    }
    Brightness(factor);
    for (double& value : offset_) value += (1 - factor) * mean_gray;
  }

  // Blends each pixel with its own grey.
  void Saturation(double factor) {
    std::array<double, 3> gray_row = {};
    double gray_offset = 0;
    for (size_t c = 0; c < 3; ++c) {
      for (size_t k = 0; k < 3; ++k) gray_row[k] += kGray[c] * matrix_[c][k];
      gray_offset += kGray[c] * offset_[c];
    }
    Brightness(factor);
    for (size_t c = 0; c < 3; ++c) {
      for (size_t k = 0; k < 3; ++k) matrix_[c][k] += (1 - factor) * gray_row[k];
      offset_[c] += (1 - factor) * gray_offset;
    }
  }

  // Clips to 0..255 and cuts off fractions, as numpy's astype(uint8) does.
  void Apply(const cv::Mat& from, cv::Mat* to) const {
    std::array<float, 9> m;
    std::array<float, 3> t;
    for (size_t c = 0; c < 3; ++c) {
      for (size_t k = 0; k < 3; ++k) m[3 * c + k] = static_cast<float>(matrix_[c][k]);
      t[c] = static_cast<float>(offset_[c]);
    }
    const auto level = [](float value) {
      return static_cast<uint8_t>(static_cast<int>(std::min(255.0F, std::max(0.0F, value))));
    };
    to->create(from.size(), CV_8UC3);
    for (int y = 0; y < from.rows; ++y) {
      const uint8_t* in = from.ptr<uint8_t>(y);
      uint8_t* out = to->ptr<uint8_t>(y);
      for (int x = 0; x < from.cols; ++x, in += 3, out += 3) {
        const float r = in[0];
        const float g = in[1];
        const float b = in[2];
        out[0] = level(m[0] * r + m[1] * g + m[2] * b + t[0]);
        out[1] = level(m[3] * r + m[4] * g + m[5] * b + t[1]);
        out[2] = level(m[6] * r + m[7] * g + m[8] * b + t[2]);
      }
    }
  }

 private:
  std::array<std::array<double, 3>, 3> matrix_ = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  std::array<double, 3> offset_ = {};
  bool identity_ = true;
};

cv::Mat TurnHue(const cv::Mat& frame, double hue) {
  constexpr int kHues = 180;  // of OpenCV's 8-bit HSV
  const int turn = static_cast<int>(hue * 255) % kHues + kHues;
  cv::Mat hsv;
  cv::cvtColor(frame, hsv, cv::COLOR_RGB2HSV);
  std::array<uint8_t, 256> turned;
  for (int h = 0; h < 256; ++h) {
    turned[static_cast<size_t>(h)] = static_cast<uint8_t>((h + turn) % kHues);
  }
  for (int y = 0; y < hsv.rows; ++y) {
    uint8_t* row = hsv.ptr<uint8_t>(y);
    for (int x = 0; x < hsv.cols; ++x) row[3 * x] = turned[row[3 * x]];
  }
  cv::Mat rgb;
  cv::cvtColor(hsv, rgb, cv::COLOR_HSV2RGB);
  return rgb;
}

}  // namespace

ColorJitter DrawColorJitter(const ColorJitterConfig& config, RandomStream& random) {
  ColorJitter jitter;
  jitter.brightness = random.Uniform(1 - config.brightness, 1 + config.brightness);
  jitter.contrast = random.Uniform(1 - config.contrast, 1 + config.contrast);
  jitter.saturation = random.Uniform(1 - config.saturation, 1 + config.saturation);
  jitter.hue = random.Uniform(-config.hue, config.hue);
  const std::vector<int64_t> order = random.Permutation(4);
  for (size_t i = 0; i < 4; ++i) jitter.order[i] = static_cast<ColorJitter::Step>(order[i]);
  return jitter;
}

cv::Mat ApplyColorJitter(const cv::Mat& frame, const ColorJitter& jitter) {
  cv::Mat current = frame;
  AffineColor color;
  const auto finish = [&] {
    if (color.identity()) return;
    cv::Mat next;
    color.Apply(current, &next);
    current = next;
    color = AffineColor();
  };
  for (const ColorJitter::Step step : jitter.order) {
    if (step == ColorJitter::kBrightness && jitter.brightness != 1) {
      color.Brightness(jitter.brightness);
    } else if (step == ColorJitter::kContrast && jitter.contrast != 1) {
      color.Contrast(jitter.contrast, cv::mean(current));
    } else if (step == ColorJitter::kSaturation && jitter.saturation != 1) {
      color.Saturation(jitter.saturation);
    } else if (step == ColorJitter::kHue && jitter.hue != 0) {
      finish();
      current = TurnHue(current, jitter.hue);
    }
  }
  finish();
  return current.data == frame.data ? frame.clone() : current;
}

}  // namespace kinefit
