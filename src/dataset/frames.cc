#include "dataset/frames.h"

#include <algorithm>
#include <cmath>

#include "dataset/packed_store.h"
#include "video/reader.h"

namespace kinefit {

cv::Rect ClipFrames::InFrames(const cv::Rect& box) const {
  const cv::Size size = frames.empty() ? window.size() : frames.front().size();
  if (size == window.size()) return box - window.tl();
  const double scale_x = static_cast<double>(size.width) / window.width;
  const double scale_y = static_cast<double>(size.height) / window.height;
  const int left = static_cast<int>(std::lround((box.x - window.x) * scale_x));
  const int top = static_cast<int>(std::lround((box.y - window.y) * scale_y));
  const int right = static_cast<int>(std::lround((box.x + box.width - window.x) * scale_x));
  const int bottom = static_cast<int>(std::lround((box.y + box.height - window.y) * scale_y));
  return {left, top, std::max(1, right - left), std::max(1, bottom - top)};
}

ClipFrames ReadFrames(const Sample& sample, const std::vector<int64_t>& numbers) {
  if (sample.store) return sample.store->ReadFrames(sample.store_entry, numbers);
  std::vector<int64_t> in_video = numbers;
  for (int64_t& number : in_video) number += sample.first_frame;
  ClipFrames clip;
  clip.frames = DecodeFrames(sample.video, in_video, sample.first_frame + sample.total_frames);
  if (clip.frames.empty()) return clip;
  clip.image = clip.frames.front().size();
  clip.window = cv::Rect({0, 0}, clip.image);
  return clip;
}

}  // namespace kinefit
