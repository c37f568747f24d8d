#include "transform/compact.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "files/error.h"

namespace kinefit {
namespace {

constexpr double kFarthest = 1e6;
constexpr int kLargestSide = 16384;

// Smallest and largest coordinate that is not 0, of one axis.
struct Extent {
  float low = std::numeric_limits<float>::infinity();
  float high = -std::numeric_limits<float>::infinity();

  void Add(float value) {
    if (value == 0 || std::isnan(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  double length() const { return high - low; }
  double centre() const { return static_cast<double>(low + high) / 2; }
};

}  // namespace

cv::Rect CompactBox(const Pose& pose, cv::Size image, const CompactOptions& options) {
  const cv::Rect whole(0, 0, image.width, image.height);
  Extent x;
  Extent y;
  for (size_t i = 0; i + 1 < pose.xy.size(); i += 2) {
    x.Add(pose.xy[i]);
    y.Add(pose.xy[i + 1]);
  }
  if (x.length() < options.threshold || y.length() < options.threshold) return whole;

  double half_width = x.length() / 2 * (1 + options.padding);
  double half_height = y.length() / 2 * (1 + options.padding);
  if (options.hw_ratio > 0) {
    half_height = std::max(options.hw_ratio * half_width, half_height);
    half_width = std::max(1 / options.hw_ratio * half_height, half_width);
  }
  double left = x.centre() - half_width;
  double right = x.centre() + half_width;
  double top = y.centre() - half_height;
  double bottom = y.centre() + half_height;
  const double farthest =
      std::max({std::abs(left), std::abs(right), std::abs(top), std::abs(bottom)});
  if (!(farthest < kFarthest)) {
    throw Error("joints lie more than a million pixels from the image", "",
                "correct the annotation; a joint that was not seen has coordinates 0 and score 0");
  }
  if (!options.allow_imgpad) {
    left = std::max(0.0, left);
    top = std::max(0.0, top);
    right = std::min<double>(image.width, right);
    bottom = std::min<double>(image.height, bottom);
  }
  // Truncation towards zero, as Python's int().
  const cv::Point from(static_cast<int>(left), static_cast<int>(top));
  const cv::Point to(static_cast<int>(right), static_cast<int>(bottom));
  if (to.x <= from.x || to.y <= from.y) return whole;
  return cv::Rect(from, to);
}

void CompactJoints(Pose* pose, const cv::Rect& box) {
  const auto move = [](float value, int by) {
    if (std::isnan(value)) return 0.0F;
    return value == 0 ? value : value - static_cast<float>(by);
  };
  for (size_t i = 0; i + 1 < pose->xy.size(); i += 2) {
    pose->xy[i] = move(pose->xy[i], box.x);
    pose->xy[i + 1] = move(pose->xy[i + 1], box.y);
  }
}

void CheckBoxSize(const cv::Rect& box) {
  if (box.width > kLargestSide || box.height > kLargestSide) {
    throw Error("the box around the joints is " + std::to_string(box.width) + "x" +
                    std::to_string(box.height) + " pixels",
                "", "correct joints that lie far outside the image, or set data.compact = false");
  }
}

cv::Mat CropPadded(const cv::Mat& frame, const cv::Rect& box) {
  const cv::Rect inside = box & cv::Rect(0, 0, frame.cols, frame.rows);
  if (inside == box) return frame(box);
  CheckBoxSize(box);
  cv::Mat padded = cv::Mat::zeros(box.size(), frame.type());
  if (!inside.empty()) frame(inside).copyTo(padded(inside - box.tl()));
  return padded;
}

}  // namespace kinefit
