#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "model/network.h"

namespace kinefit {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Weights of a two-stream network from those of single-stream ones, as mmaction2's
// merge_pretrain.ipynb does it: "backbone." becomes "backbone.rgb_path." or "backbone.pose_path.",
// "fc_cls" becomes "fc_rgb" or "fc_pose", and where laterals are concatenated behind the stream's
// own channels the first convolutions of the stage get zero weights for them. For a PCAN the fused
// classifier starts as the sum of both classifiers, if both are given and fit.
//
// `rgb` and `pose` are state dicts of single-stream networks, on the CPU; either may be empty.
// `target` tells names and shapes. Tensors that fit nothing are passed on under their new names for
// the loading to report. Throws Error if one of them is not from a single-stream network.
NamedTensors MergeSingleStreams(const NamedTensors& rgb, const NamedTensors& pose,
                                const Network& target);

}  // namespace kinefit
