#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "model/layers.h"
#include "ops/feature.h"

namespace kinefit {

// PCAN's FeatureInteraction (arXiv 2412.14719; names are its checkpoints'): both streams shrink to
// one token per moment (an RGB frame), each attends to the other's, and what comes of it scales its
// features, channel by channel and moment by moment.
class FeatureInteraction {
 public:
  // `moments`: pose frames per RGB frame.
  FeatureInteraction(TensorMaker& maker, const std::string& name, int64_t rgb_channels,
                     int64_t pose_channels, int64_t hidden, int64_t moments, int64_t heads,
                     double dropout);

  // [N, C, T, H, W] and [N, C', T * moments, H', W'] to features of the same shapes.
  std::pair<Feature, Feature> Forward(const Feature& rgb, const Feature& pose,
                                      const ForwardContext& context) const;

 private:
  struct Layer {
    at::Tensor weight, bias;
  };
  // Multi-head attention of tokens [N, T, hidden], with biases throughout.
  struct Attention {
    Layer query, key, value, output;
  };
  static Layer MakeLayer(TensorMaker& maker, const std::string& name,
                         const std::vector<int64_t>& shape, int64_t outputs, double fan_in);
  static Attention MakeAttention(TensorMaker& maker, const std::string& name, int64_t hidden);
  at::Tensor Attend(const Attention& attention, const at::Tensor& from, const at::Tensor& to,
                    const ForwardContext& context) const;
  void Trace(const Feature& rgb, const Feature& pose, LayerTrace* trace) const;

  std::string name_;
  int64_t hidden_, heads_;
  double dropout_;
  Layer shrink_rgb_, shrink_pose_, widen_rgb_, widen_pose_;  // conv1, conv2, conv4, conv5
  Attention rgb_, pose_;
};

}  // namespace kinefit
