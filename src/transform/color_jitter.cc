#include "transform/color_jitter.h"

#include <cstdint>
#include <utility>

namespace kinefit {
namespace {

using RgbMean = std::array<double, 3>;

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
  void Contrast(double factor, const RgbMean& mean_rgb) {
    double mean_gray = 0;
    for (size_t c = 0; c < 3; ++c) {
      double channel = offset_[c];
      for (size_t k = 0; k < 3; ++k) channel += matrix_[c][k] * mean_rgb[k];
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
  ColorMatrix ToMatrix() const {
    ColorMatrix color;
    for (size_t c = 0; c < 3; ++c) {
      for (size_t k = 0; k < 3; ++k) color.matrix[3 * c + k] = static_cast<float>(matrix_[c][k]);
      color.offset[c] = static_cast<float>(offset_[c]);
    }
    return color;
  }

 private:
  std::array<std::array<double, 3>, 3> matrix_ = {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  std::array<double, 3> offset_ = {};
  bool identity_ = true;
};

int HueSteps(double hue) {
  constexpr int kHues = 180;  // of OpenCV's 8-bit HSV
  return (static_cast<int>(hue * 255) % kHues + kHues) % kHues;
}

void ApplyToRows(const ColorPass& pass, PlanarImage* image) {
  for (int64_t y = 0; y < image->height; ++y) pass.Apply(image->row(y), image->width);
}

// What has still to be done to an image: a change, a turn of the hue, another change.
struct Pending {
  AffineColor before;
  int turn = kNoTurn;
  AffineColor after;

  AffineColor& last() { return turn == kNoTurn ? before : after; }

  ColorPass ToPass() const {
    const ColorMatrix first = before.ToMatrix();
    const ColorMatrix last = after.ToMatrix();
    return {before.identity() ? nullptr : &first, turn, after.identity() ? nullptr : &last};
  }

  // All but the last change, which is then the first.
  void ApplyTurn(PlanarImage* image) {
    if (turn == kNoTurn) return;
    const AffineColor rest = after;
    after = AffineColor();
    ApplyToRows(ToPass(), image);
    *this = {rest, kNoTurn, AffineColor()};
  }
};

RgbMean MeanOf(const PlanarImage& image) {
  std::array<int64_t, 3> sums = {};
  for (int64_t y = 0; y < image.height; ++y) {
    for (size_t c = 0; c < 3; ++c) {
      sums[c] += SumRow(image.row(y) + static_cast<int64_t>(c) * image.width, image.width);
    }
  }
  RgbMean mean = {};
  const double pixels = static_cast<double>(image.width * image.height);
  for (size_t c = 0; c < 3; ++c) mean[c] = static_cast<double>(sums[c]) / pixels;
  return mean;
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

ColorPass::ColorPass(const ColorMatrix* before, int turn, const ColorMatrix* after) : turn_(turn) {
  if (turn == kNoTurn && after == nullptr) std::swap(before, after);
  if (before != nullptr) before_ = *before;
  if (after != nullptr) after_ = FixedColorMatrix(*after);
}

void ColorPass::Apply(uint8_t* row, int64_t width) const {
  if (!before_ && turn_ == kNoTurn && !after_) return;
  TransformColorRow(before_ ? &*before_ : nullptr, turn_, after_ ? &*after_ : nullptr, width, row);
}

ColorPass StartColorJitter(const ColorJitter& jitter, PlanarImage* image) {
  Pending pending;
  for (const ColorJitter::Step step : jitter.order) {
    if (step == ColorJitter::kBrightness && jitter.brightness != 1) {
      pending.last().Brightness(jitter.brightness);
    } else if (step == ColorJitter::kContrast && jitter.contrast != 1) {
      pending.ApplyTurn(image);  // no linear change: the mean after it has to be looked at
      pending.last().Contrast(jitter.contrast, MeanOf(*image));
    } else if (step == ColorJitter::kSaturation && jitter.saturation != 1) {
      pending.last().Saturation(jitter.saturation);
    } else if (step == ColorJitter::kHue && jitter.hue != 0) {
      pending.turn = HueSteps(jitter.hue);
    }
  }
  return pending.ToPass();
}

void ApplyColorJitter(const ColorJitter& jitter, PlanarImage* image) {
  ApplyToRows(StartColorJitter(jitter, image), image);
}

cv::Mat ApplyColorJitter(const cv::Mat& frame, const ColorJitter& jitter) {
  PlanarImage image = PlanarImage::Of(frame);
  ApplyColorJitter(jitter, &image);
  return image.ToFrame();
}

}  // namespace kinefit
