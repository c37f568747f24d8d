#pragma once

#include <optional>
#include <vector>

#include "ops/conv_norm.h"
#include "ops/feature.h"

namespace kinefit {

// The layers of one bottleneck block: three convolutions with batch norm, ReLU behind the first two
// and behind the sum of the third and the shortcut. Without `shortcut` the block's input is added.
struct BottleneckLayers {
  ConvNorm conv1, conv2, conv3;
  std::optional<ConvNorm> shortcut;
};

// What a stage of bottleneck blocks keeps between forward and backward, from most memory and least
// time to least memory and most time. The rest is computed again; all give the same bits.
enum class Keep {
  kConvolutions,  // every convolution's output; norms, activations and sums are computed again
  kSpatial,       // the outputs of the first two convolutions of each block; the 1x1x1
                  // convolutions behind them (third, shortcut) run again
  kBlocks,        // each block's input; a block runs again when its turn comes
  kStage,       // the stage's input; the stage runs again and then keeps its convolutions' outputs
  kStageBlocks  // the stage's input; from it blocks get theirs by halves, so that few are there at
                // once, and each block runs again when its turn comes
};

// How often each block of a stage runs again with Keep::kStageBlocks.
std::vector<int64_t> RunsAgain(size_t blocks);

// A stage: blocks one after the other, as one differentiable operation. x [N, C, T, H, W] -> [N,
// C', T', H', W'] in x's dtype. Values and gradients are those of the plain ATen composition up to
// rounding. Batch norm statistics are taken, and the running ones moved, once, however often a
// block runs. Differentiable once. With `keep_all` (and Keep::kConvolutions) nothing at all is
// computed again: what the convolutions read is kept, too.
Feature BottleneckStage(const Feature& x, const std::vector<BottleneckLayers>& blocks,
                        const BatchNormMode& mode, Keep keep, bool keep_all = false);

}  // namespace kinefit
