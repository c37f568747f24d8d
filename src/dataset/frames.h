#pragma once

#include <cstdint>
#include <opencv2/core.hpp>
#include <vector>

#include "dataset/sample.h"

namespace kinefit {

// Pictures of a clip, which may be a part of what the video shows, at another scale.
struct ClipFrames {
  std::vector<cv::Mat> frames;  // RGB, CV_8UC3, all of one size
  cv::Size image;               // of the video as it is shown, in its pixels
  cv::Rect window;              // the part of `image` that each frame shows; for videos all of it

  // A box given in pixels of `image`, in pixels of the frames, to the nearest whole ones. For
  // videos the box itself.
  cv::Rect InFrames(const cv::Rect& box) const;
};

// The frames of the sample with the given numbers (0-based; any order, repeats allowed), from its
// video or its packed store. Equal numbers share one buffer: treat frames as read-only. A video
// with fewer frames than annotated is refused whether or not a missing one is asked for. Throws
// Error naming the file if it cannot be read. Thread-safe.
ClipFrames ReadFrames(const Sample& sample, const std::vector<int64_t>& numbers);

}  // namespace kinefit
