#pragma once

#include <opencv2/core.hpp>

#include "dataset/sample.h"
#include "random/stream.h"

namespace kinefit {

struct CropRange {
  double area_min = 0.08;  // share of the image's area
  double area_max = 1;
  double aspect_min = 0.75;  // width / height, drawn uniformly in its logarithm
  double aspect_max = 1.3333333333333333;
};

// A random box inside an image (mmaction2 RandomResizedCrop): ten tries, then the largest square in
// the middle.
cv::Rect DrawCropBox(cv::Size image, const CropRange& range, RandomStream& random);

// Moves all joints into the box's coordinates. Unlike CompactJoints it moves coordinates of 0 too,
// as the reference does; a joint that was not seen is recognised by its score of 0.
void CropJoints(Pose* pose, const cv::Rect& box);

}  // namespace kinefit
