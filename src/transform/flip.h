#pragma once

#include <cstdint>
#include <opencv2/core.hpp>
#include <vector>

#include "dataset/sample.h"

namespace kinefit {

// order[j]: the joint that stands at j's place in a mirror image. `left` and `right` name pairs,
// the i-th with the i-th; joints in neither are their own mirror image. Throws Error naming
// data.left_joints / data.right_joints if lengths differ, a joint does not exist or comes twice.
std::vector<int64_t> MirrorOrder(int64_t joints, const std::vector<int64_t>& left,
                                 const std::vector<int64_t>& right);

// The same for limbs, which follow from their joints. Throws Error if a limb's mirror image is not
// among the limbs, or a limb is not a pair of existing joints.
std::vector<int64_t> MirrorLimbOrder(const std::vector<std::vector<int64_t>>& limbs,
                                     const std::vector<int64_t>& joint_order);

// Mirrors joints left to right in an image of the given width and swaps them by `order`
// (mmaction2 Flip: x becomes width - x; an x of exactly 0 stays 0).
void FlipJoints(Pose* pose, int64_t width, const std::vector<int64_t>& order);

cv::Mat FlipFrame(const cv::Mat& frame);

}  // namespace kinefit
