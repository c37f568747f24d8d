#include "transform/flip.h"

#include <algorithm>
#include <numeric>
#include <opencv2/core.hpp>
#include <string>

#include "files/error.h"

namespace kinefit {

std::vector<int64_t> MirrorOrder(int64_t joints, const std::vector<int64_t>& left,
                                 const std::vector<int64_t>& right) {
  if (left.size() != right.size()) {
    throw Error("data.left_joints has " + std::to_string(left.size()) +
                    " joints and data.right_joints " + std::to_string(right.size()),
                "data.left_joints, data.right_joints", "list each left joint with its right one");
  }
  std::vector<int64_t> order(static_cast<size_t>(joints));
  std::iota(order.begin(), order.end(), 0);
  std::vector<bool> paired(order.size(), false);
  const auto claim = [&](int64_t joint, const char* key) {
    if (joint < 0 || joint >= joints) {
      throw Error("joint " + std::to_string(joint) + " does not exist; there are " +
                      std::to_string(joints) + " joints, counted from 0",
                  key, "correct the list");
    }
    if (paired[static_cast<size_t>(joint)]) {
      throw Error("joint " + std::to_string(joint) + " is listed twice", key,
                  "list each joint once");
    }
    paired[static_cast<size_t>(joint)] = true;
  };
  for (size_t i = 0; i < left.size(); ++i) {
    claim(left[i], "data.left_joints");
    claim(right[i], "data.right_joints");
    order[static_cast<size_t>(left[i])] = right[i];
    order[static_cast<size_t>(right[i])] = left[i];
  }
  return order;
}

std::vector<int64_t> MirrorLimbOrder(const std::vector<std::vector<int64_t>>& limbs,
                                     const std::vector<int64_t>& joint_order) {
  const int64_t joints = static_cast<int64_t>(joint_order.size());
  std::vector<int64_t> order;
  for (size_t i = 0; i < limbs.size(); ++i) {
    const std::vector<int64_t>& limb = limbs[i];
    const auto exists = [&](int64_t joint) { return joint >= 0 && joint < joints; };
    if (limb.size() != 2 || !exists(limb[0]) || !exists(limb[1])) {
      throw Error("limb " + std::to_string(i) + " is not a pair of joints between 0 and " +
                      std::to_string(joints - 1),
                  "data.limbs", "correct data.limbs");
    }
    const int64_t a = joint_order[static_cast<size_t>(limb[0])];
    const int64_t b = joint_order[static_cast<size_t>(limb[1])];
    const auto mirror = std::find_if(limbs.begin(), limbs.end(), [&](const auto& other) {
      return other == std::vector<int64_t>{a, b} || other == std::vector<int64_t>{b, a};
    });
    if (mirror == limbs.end()) {
      throw Error("limb " + std::to_string(i) + " has no mirror image (" + std::to_string(a) +
                      ", " + std::to_string(b) + ") among the limbs",
                  "data.limbs", "add it, or correct data.left_joints and data.right_joints");
    }
    order.push_back(mirror - limbs.begin());
  }
  return order;
}

void FlipJoints(Pose* pose, int64_t width, const std::vector<int64_t>& order) {
  const std::vector<float> xy = pose->xy;
  const std::vector<float> score = pose->score;
  const float image_width = static_cast<float>(width);
  const size_t joints = static_cast<size_t>(pose->joints);
  for (size_t first = 0; first < score.size(); first += joints) {
    for (size_t j = 0; j < joints; ++j) {
      const size_t from = first + static_cast<size_t>(order[j]);
      const float x = xy[2 * from];
      pose->xy[2 * (first + j)] = x == 0 ? x : image_width - x;
      pose->xy[2 * (first + j) + 1] = xy[2 * from + 1];
      pose->score[first + j] = score[from];
    }
  }
}

cv::Mat FlipFrame(const cv::Mat& frame) {
  cv::Mat flipped;
  cv::flip(frame, flipped, 1);
  return flipped;
}

}  // namespace kinefit
