#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "model/cross_attention.h"
#include "model/interaction.h"
#include "model/resnet3d.h"

namespace kinefit {

struct TwoStreamFeatures {
  Feature rgb;   // [N, C, T, H, W]
  Feature pose;  // [N, C', T', H, W]
};

// mmaction2's RGBPoseConv3D: two pathways with lateral connections; that of rgbpose_attention, with
// attention; and PCAN's, whose interaction blocks stand before the last two stages of both:
// laterals are computed from what arrives there, and concatenated with what the block makes of it.
//
// The streams are aligned at their last stages: with 4 RGB and 3 pose stages, RGB layer2 stands
// beside pose layer1. Before each stage that both have, what arrives there is exchanged: first the
// attention block, if one stands at this point, changes both features; then the laterals into
// either stream are computed from both features, before either is concatenated. The point "stage3"
// is before the last stages (after RGB layer3 and pose layer2 of four and three), "final" after
// them. Detaching also cuts the gradient through attention; drop path concerns laterals alone.
class TwoStreamBackbone {
 public:
  TwoStreamBackbone(TensorMaker& maker, const ModelConfig& config);

  TwoStreamFeatures Forward(const at::Tensor& imgs, const at::Tensor& heatmap_imgs,
                            const ForwardContext& context) const;
  // Of both pathways, for Recompute.
  std::vector<std::string> Segments() const;

 private:
  // Changes both features on the way into RGB stage `rgb_stage` and pose stage `pose_stage`.
  void Exchange(size_t rgb_stage, size_t pose_stage, bool drop_rgb, bool drop_pose,
                const ForwardContext& context, TwoStreamFeatures* x) const;

  FusionConfig fusion_;
  Pathway rgb_;
  std::map<size_t, ConvUnit> rgb_laterals_;  // by the stage of this stream whose input they join
  Pathway pose_;
  std::map<size_t, ConvUnit> pose_laterals_;
  std::unique_ptr<CrossAttention> attention_stage3_;
  std::unique_ptr<CrossAttention> attention_final_;
  std::map<size_t, FeatureInteraction> interactions_;  // PCAN's, by the RGB stage they stand before
};

}  // namespace kinefit
