#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <utility>

#include "config/config.h"
#include "model/layers.h"

namespace kinefit {

// PCAN's exchange between the streams: each stream's positions attend to the other's, and what they
// find is added through a gate that starts at zero:
//
//     rgb'  = rgb  + gate_rgb  * output_rgb (attention(query_rgb (rgb),  key_pose(pose),
//     value_pose(pose))) pose' = pose + gate_pose * output_pose(attention(query_pose(pose), key_rgb
//     (rgb),  value_rgb (rgb)))
//
// Both are computed from the features as they came. Queries, keys and values are 1x1x1
// convolutions followed by batch norm, which keeps the scores' scale whatever the features' is.
// Queries and keys carry a fixed sinusoidal code of (t, y, x), each relative to the clip's length,
// height and width, so that the same place and moment agree between streams of different rates.
// Names: PREFIX.rgb.{query,key,value,output}.{conv,bn}.*, PREFIX.rgb.gate [1], and the same of
// PREFIX.pose; "rgb" is what belongs to the RGB stream's own features, so rgb.query meets pose.key.
class CrossAttention {
 public:
  CrossAttention(TensorMaker& maker, const std::string& prefix, int64_t rgb_channels,
                 int64_t pose_channels, const ModelConfig& config);

  // [N, C, T, H, W] of each stream -> the same shapes. Throws Error if the scope is "frame" and the
  // pose clip is not a whole multiple of the RGB clip.
  std::pair<Feature, Feature> Forward(const Feature& rgb, const Feature& pose,
                                      const ForwardContext& context) const;

 private:
  // One stream's own projections.
  struct Side {
    Side(TensorMaker& maker, const std::string& name, int64_t channels, int64_t width);
    ConvUnit query;
    ConvUnit key;
    ConvUnit value;
    ConvUnit output;
    at::Tensor gate;
  };

  Feature Attend(const Side& to, const Feature& x, const Side& from, const Feature& other,
                 bool detach, const ForwardContext& context, const std::string& name) const;

  std::string prefix_;
  AttentionConfig config_;
  bool rgb_detach_;
  bool pose_detach_;
  Side rgb_;
  Side pose_;
};

}  // namespace kinefit
