#pragma once

#include <opencv2/core.hpp>

#include "dataset/sample.h"

namespace kinefit {

// Bilinear, without keeping the aspect (mmcv.imresize). `frame` itself if it has that size already.
cv::Mat ResizeFrame(const cv::Mat& frame, cv::Size size);

// Scales the joints of an image of size `from` to one of size `to`.
void ResizeJoints(Pose* pose, cv::Size from, cv::Size to);

// Throws Error if an image of size `shown` has another shape than the one that joints refer to, but
// for rounding: they would be drawn where nobody is.
void CheckAspect(const cv::Size& annotated, const cv::Size& shown);

}  // namespace kinefit
