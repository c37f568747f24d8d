#pragma once

#include <cstdint>
#include <opencv2/core.hpp>
#include <vector>

#include "config/config.h"
#include "dataset/sample.h"

namespace kinefit {

using Limbs = std::vector<std::vector<int64_t>>;  // pairs of joints

// Channels of a heatmap: joints, then limbs, as far as `config` asks for them.
int64_t HeatmapChannels(const HeatmapConfig& config, int64_t joints, const Limbs& limbs);

// Throws Error for a limb that is not a pair of existing joints.
void CheckLimbs(const Limbs& limbs, int64_t joints);

// Order of the heatmaps' channels in a mirror image; `joint_order`: of the joints (MirrorOrder).
std::vector<int64_t> MirrorChannels(const HeatmapConfig& config, const Limbs& limbs,
                                    const std::vector<int64_t>& joint_order);

// Size of the heatmaps of an image: scaled and rounded.
cv::Size HeatmapSize(cv::Size image, double scaling);

// Draws `count` frames of `pose` from `first_frame` on, whose coordinates refer to an image of size
// `image`, into `out`: [C, count, h, w], overwritten. Each joint is a Gaussian of height score (1
// without use_score) cut off at three sigma; limbs are Gaussians about the line between two joints
// with the lower of their scores; persons are merged by the maximum (mmaction2 GeneratePoseTarget,
// which, other than here, draws limbs over the joints' channels when asked for both).
// Joints or limbs with a score below 1e-4 are not drawn. Throws Error for a limb that is not a pair
// of existing joints, or if neither joints nor limbs are asked for.
void DrawHeatmaps(const Pose& pose, int64_t first_frame, int64_t count, cv::Size image,
                  const HeatmapConfig& config, const Limbs& limbs, float* out);

// The mirror image of heatmaps `from` [C, T, h, w] into `to`: pixels mirrored left to right, and
// channel c taken from channel order[c] (mmaction2's `double`).
void MirrorHeatmaps(const float* from, int64_t frames, cv::Size size,
                    const std::vector<int64_t>& channel_order, float* to);

}  // namespace kinefit
