#include "transform/random_resized_crop.h"

#include <algorithm>
#include <cmath>

namespace kinefit {

cv::Rect DrawCropBox(cv::Size image, const CropRange& range, RandomStream& random) {
  constexpr int kTries = 10;
  const double image_area = static_cast<double>(image.width) * image.height;
  for (int i = 0; i < kTries; ++i) {
    const double aspect =
        std::exp(random.Uniform(std::log(range.aspect_min), std::log(range.aspect_max)));
    const double area = random.Uniform(range.area_min, range.area_max) * image_area;
    // nearbyint rounds halves to even, as numpy.round. A tiny image must still leave a pixel.
    const int width = std::max(1, static_cast<int>(std::nearbyint(std::sqrt(area * aspect))));
    const int height = std::max(1, static_cast<int>(std::nearbyint(std::sqrt(area / aspect))));
    if (width > image.width || height > image.height) continue;
    const int left = static_cast<int>(random.Integer(0, image.width - width + 1));
    const int top = static_cast<int>(random.Integer(0, image.height - height + 1));
    return {left, top, width, height};
  }
  const int side = std::min(image.width, image.height);
  return {(image.width - side) / 2, (image.height - side) / 2, side, side};
}

void CropJoints(Pose* pose, const cv::Rect& box) {
  const float left = static_cast<float>(box.x);
  const float top = static_cast<float>(box.y);
  for (size_t i = 0; i + 1 < pose->xy.size(); i += 2) {
    pose->xy[i] -= left;
    pose->xy[i + 1] -= top;
  }
}

}  // namespace kinefit
