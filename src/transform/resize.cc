#include "transform/resize.h"

#include <cmath>
#include <opencv2/imgproc.hpp>
#include <string>

#include "files/error.h"

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

// Joints may have been taken from another picture: cropped, rotated, of another video.
void CheckAspect(const cv::Size& annotated, const cv::Size& shown) {
  constexpr double kAllowed = 0.02;
  const double ratio = static_cast<double>(annotated.width) * shown.height /
                       (static_cast<double>(annotated.height) * shown.width);
  if (std::abs(ratio - 1) <= kAllowed) return;
  throw Error("the joints refer to an image of " + std::to_string(annotated.width) + "x" +
                  std::to_string(annotated.height) + " (img_shape), the video shows " +
                  std::to_string(shown.width) + "x" + std::to_string(shown.height),
              "", "annotate this very video, or correct img_shape (height, width)");
}

}  // namespace kinefit
