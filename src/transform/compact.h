#pragma once

#include <opencv2/core.hpp>

#include "dataset/sample.h"

namespace kinefit {

struct CompactOptions {
  double padding = 0.25;     // the box grows by this share, about its centre
  double threshold = 10;     // boxes narrower or lower than this many pixels are not used
  double hw_ratio = 1;       // height / width the box is widened to; 0 = keep its own shape
  bool allow_imgpad = true;  // the box may reach beyond the image; else it is cut at its border
};

// The box, in pixels, around all joints of all frames and persons (mmaction2 PoseCompact and
// MMCompact). A coordinate of exactly 0, or NaN, means "not seen" and does not count. The whole
// image if the joints' box is below the threshold or, without imgpad, lies outside the image.
// Throws Error if joints are further than a million pixels away.
cv::Rect CompactBox(const Pose& pose, cv::Size image, const CompactOptions& options);

// Moves joints into the box's coordinates; coordinates of exactly 0 stay 0, NaN becomes 0.
void CompactJoints(Pose* pose, const cv::Rect& box);

// Throws Error if the box is wider or higher than 16384.
void CheckBoxSize(const cv::Rect& box);

// The part of `frame` in the box, black where the box reaches beyond the frame. Shares the frame's
// pixels where it can: treat as read-only. Throws Error if the box is wider or higher than 16384.
cv::Mat CropPadded(const cv::Mat& frame, const cv::Rect& box);

}  // namespace kinefit
