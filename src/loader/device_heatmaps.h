#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>

#include "config/config.h"
#include "loader/loader.h"

namespace kinefit {

// Joints per person that heatmaps are drawn from: all where each has a channel, else as many as the
// limbs name.
int64_t JointsDrawn(const Config& config);

// The heatmaps of a batch, [N*K, C, T, h, w] float32 on `device`: those that the loader drew, or
// what it would have drawn of `batch.joints`. Draws with ATen, the same on any device, within 1e-5
// of DrawHeatmaps (transform/heatmap.h) and with the same bits for a row whatever else is in the
// batch. Takes little memory besides its result: a few MiB, and the one-dimensional Gaussians of
// one person at a time. Not differentiable. Undefined for batches without a pose stream.
at::Tensor HeatmapsOn(const Batch& batch, const DataConfig& data, const at::Device& device);

// Joints without values, as a loader makes them of `clips` clips with two people each, none of them
// mirrored; `side` as in HeatmapJoints. For rehearsals: another person is some ten KiB per clip.
HeatmapJoints EmptyJoints(const Config& config, int64_t clips, int64_t side,
                          const at::TensorOptions& options);

}  // namespace kinefit
