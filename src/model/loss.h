#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "model/network.h"

namespace kinefit {

struct Loss {
  at::Tensor total;                                       // scalar, weighted sum
  std::vector<std::pair<std::string, at::Tensor>> parts;  // per stream, weighted, scalars
};

// Sum over the streams of weight * cross-entropy (mean over the batch) with label smoothing
// (mmaction2 RGBPoseHead.loss_by_feat; smoothing spreads eps over all classes).
// `labels` [N] int64 on the logits' device.
Loss ComputeLoss(const NetworkOutput& output, const at::Tensor& labels, const HeadConfig& config);

}  // namespace kinefit
