#pragma once

#include <array>
#include <cstdint>
#include <opencv2/core.hpp>
#include <optional>

#include "config/config.h"
#include "random/stream.h"
#include "transform/resample.h"

namespace kinefit {

// One draw of colour jitter, for all frames of a clip.
struct ColorJitter {
  enum Step { kBrightness, kContrast, kSaturation, kHue };
  double brightness = 1;  // factors; 1 and, for hue, 0 change nothing
  double contrast = 1;
  double saturation = 1;
  double hue = 0;  // added to the hue, in 255ths of OpenCV's 180 steps (as mmaction2 does)
  std::array<Step, 4> order = {kBrightness, kContrast, kSaturation, kHue};
};

// Factors uniform in 1 -+ config.brightness and so on, hue in 0 -+ config.hue, in random order.
ColorJitter DrawColorJitter(const ColorJitterConfig& config, RandomStream& random);

// What a jitter does to the rows of one picture.
class ColorPass {
 public:
  ColorPass(const ColorMatrix* before, int turn, const ColorMatrix* after);
  // `row`: red, green and blue of `width` pixels. In place.
  void Apply(uint8_t* row, int64_t width) const;

 private:
  std::optional<ColorMatrix> before_;
  int turn_;
  std::optional<FixedColorMatrix> after_;
};

// Applies the four steps in their order (mmaction2 ColorJitter, within one grey level: its float32
// steps are joined into one), as far as a later one needs the whole picture. What is left to do,
// once to each row, is returned.
ColorPass StartColorJitter(const ColorJitter& jitter, PlanarImage* image);
// All of it.
void ApplyColorJitter(const ColorJitter& jitter, PlanarImage* image);
// The same for an RGB CV_8UC3 frame; returns a new one.
cv::Mat ApplyColorJitter(const cv::Mat& frame, const ColorJitter& jitter);

}  // namespace kinefit
