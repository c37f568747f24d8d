#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "model/layers.h"
#include "ops/bottleneck_stage.h"

namespace kinefit {

// mmaction2's Bottleneck3d in its "pytorch" style: conv1 3x1x1 where inflated, else 1x1x1; conv2
// 1x3x3 with the stride; conv3 1x1x1 to four times the planes; then the shortcut and ReLU.
class Bottleneck {
 public:
  static constexpr int64_t kExpansion = 4;

  struct Shape {
    int64_t in_channels;
    int64_t planes;
    int64_t spatial_stride;
    int64_t temporal_stride;
    bool inflate;
    bool downsample;  // the shortcut is a convolution
    bool zero_init;   // the last batch norm's scale starts at zero
  };

  Bottleneck(TensorMaker& maker, const std::string& name, const Shape& shape);
  // The plain composition, or in a trace the shapes.
  at::Tensor Forward(const at::Tensor& x, const ForwardContext& context) const;
  // For BottleneckStage.
  BottleneckLayers Layers() const;

 private:
  ConvUnit conv1_;
  ConvUnit conv2_;
  ConvUnit conv3_;
  std::optional<ConvUnit> downsample_;
};

// mmaction2's ResNet3d (Pathway, SlowOnly) of bottlenecks: a stem (convolution and max pool), then
// stages. Its caller runs the stages one by one and may add channels in between.
class Pathway {
 public:
  // `stream`: "rgb" or "pose". `lateral_channels[i]`: channels that the caller concatenates to the
  // input of stage i.
  Pathway(TensorMaker& maker, const std::string& prefix, const std::string& stream,
          const PathwayConfig& config, const std::vector<int64_t>& lateral_channels);

  // [N, in_channels, T, H, W] -> [N, base_channels, T', H', W'].
  Feature Stem(const at::Tensor& x, const ForwardContext& context) const;
  // Stage `index`, counted from 0 ("layer1").
  Feature Stage(size_t index, const Feature& x, const ForwardContext& context) const;
  // Names of stem and stages for Recompute, "rgb.stem", "rgb.layer1", ...
  std::vector<std::string> Segments() const;
  size_t stages() const { return stages_.size(); }

 private:
  std::string pool_name_;
  std::string stream_;
  PathwayConfig config_;
  ConvUnit conv1_;
  std::vector<std::vector<Bottleneck>> stages_;
};

// Channels of a pathway's features after `stages` stages (0: after the stem).
int64_t PathwayChannels(const PathwayConfig& config, size_t stages);

}  // namespace kinefit
