#include "transform/resize.h"

#include <opencv2/imgproc.hpp>

namespace kinefit {

cv::Mat ResizeFrame(const cv::Mat& frame, cv::Size size) {
  if (frame.size() == size) return frame;
  cv::Mat resized;
  cv::resize(frame, resized, size, 0, 0, cv::INTER_LINEAR);
  return resized;
}

void ResizeJoints(Pose* pose, cv::Size from, cv::Size to) {
  const float scale_x = static_cast<float>(static_cast<double>(to.width) / from.width);
  const float scale_y = static_cast<float>(static_cast<double>(to.height) / from.height);
  for (size_t i = 0; i + 1 < pose->xy.size(); i += 2) {
    pose->xy[i] *= scale_x;
    pose->xy[i + 1] *= scale_y;
  }
}

}  // namespace kinefit
