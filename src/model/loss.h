#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "model/network.h"

namespace kinefit {

// Sum over the streams of weight * cross-entropy (mean over the batch) with label smoothing
// (mmaction2 RGBPoseHead.loss_by_feat; smoothing spreads eps over all classes).
// `labels` [N] int64 on the logits' device.
Loss ComputeLoss(const NetworkOutput& output, const at::Tensor& labels, const HeadConfig& config);

// Mean over the batch of -sum(target * log softmax), target = (1 - eps) * one hot + eps / classes.
at::Tensor CrossEntropy(const at::Tensor& logits, const at::Tensor& labels, double smoothing);

}  // namespace kinefit
