#include "model/resnet3d.h"

namespace kinefit {
namespace {

ConvShape TemporalConv(bool inflate) {
  ConvShape shape;
  if (inflate) {
    shape.kernel = {3, 1, 1};
    shape.padding = {1, 0, 0};
  }
  return shape;
}

ConvShape SpatialConv(int64_t temporal_stride, int64_t spatial_stride) {
  ConvShape shape;
  shape.kernel = {1, 3, 3};
  shape.stride = {temporal_stride, spatial_stride, spatial_stride};
  shape.padding = {0, 1, 1};
  return shape;
}

ConvShape StemConv(const PathwayConfig& config) {
  ConvShape shape;
  shape.kernel = config.conv1_kernel;
  shape.stride = {config.conv1_stride_t, config.conv1_stride_s, config.conv1_stride_s};
  for (size_t i = 0; i < 3; ++i) shape.padding[i] = (config.conv1_kernel[i] - 1) / 2;
  return shape;
}

ConvShape ShortcutConv(int64_t temporal_stride, int64_t spatial_stride) {
  ConvShape shape;
  shape.stride = {temporal_stride, spatial_stride, spatial_stride};
  return shape;
}

std::vector<Bottleneck> MakeStage(TensorMaker& maker, const std::string& name,
                                  const PathwayConfig& config, size_t stage, int64_t in_channels) {
  const int64_t out_channels = PathwayChannels(config, stage + 1);
  const int64_t stride = config.spatial_strides[stage];
  Bottleneck::Shape shape{
      in_channels,
      out_channels / Bottleneck::kExpansion,
      stride,
      config.temporal_strides[stage],
      config.inflate[stage] == 1,
      stride != 1 || config.temporal_strides[stage] != 1 || in_channels != out_channels,
      config.zero_init_last_bn};
  std::vector<Bottleneck> blocks;
  for (int64_t i = 0; i < config.stage_blocks[stage]; ++i) {
    blocks.emplace_back(maker, name + "." + std::to_string(i), shape);
    shape.in_channels = out_channels;
    shape.spatial_stride = 1;
    shape.temporal_stride = 1;
    shape.downsample = false;
  }
  return blocks;
}

}  // namespace

Bottleneck::Bottleneck(TensorMaker& maker, const std::string& name, const Shape& s)
    : conv1_(maker, name + ".conv1", s.in_channels, s.planes, TemporalConv(s.inflate),
             After::kBatchNormRelu),
      conv2_(maker, name + ".conv2", s.planes, s.planes,
             SpatialConv(s.temporal_stride, s.spatial_stride), After::kBatchNormRelu),
      conv3_(maker, name + ".conv3", s.planes, s.planes * kExpansion, ConvShape{},
             s.zero_init ? After::kZeroBatchNorm : After::kBatchNorm) {
  if (!s.downsample) return;
  downsample_.emplace(maker, name + ".downsample", s.in_channels, s.planes * kExpansion,
                      ShortcutConv(s.temporal_stride, s.spatial_stride), After::kBatchNorm);
}

at::Tensor Bottleneck::Forward(const at::Tensor& x, const ForwardContext& context) const {
  const auto run = [&](const ConvUnit& unit, const at::Tensor& input) {
    return unit.Forward({input, nullptr}, context).value;
  };
  at::Tensor y = run(conv3_, run(conv2_, run(conv1_, x)));
  const at::Tensor shortcut = downsample_ ? run(*downsample_, x) : x;
  if (context.trace != nullptr) return y;
  // In place: batch norm keeps its input for backward, never its result.
  y.add_(shortcut);
  return at::relu_(y);
}

BottleneckLayers Bottleneck::Layers() const {
  BottleneckLayers layers{conv1_.layer(), conv2_.layer(), conv3_.layer(), std::nullopt};
  if (downsample_) layers.shortcut = downsample_->layer();
  return layers;
}

Pathway::Pathway(TensorMaker& maker, const std::string& prefix, const std::string& stream,
                 const PathwayConfig& config, const std::vector<int64_t>& lateral_channels)
    : pool_name_(prefix + ".maxpool"),
      stream_(stream),
      config_(config),
      conv1_(maker, prefix + ".conv1", config.in_channels, config.base_channels, StemConv(config),
             After::kBatchNormRelu) {
  for (size_t i = 0; i < config.stage_blocks.size(); ++i) {
    stages_.push_back(MakeStage(maker, prefix + ".layer" + std::to_string(i + 1), config, i,
                                PathwayChannels(config, i) + lateral_channels[i]));
  }
}

Feature Pathway::Stem(const at::Tensor& x, const ForwardContext& context) const {
  const bool keep = context.recompute.Of(stream_ + ".stem") == Keep::kConvolutions;
  const Feature y = conv1_.Forward({x, nullptr}, context, keep);
  return MaxPool(y, config_.pool1_stride_t, config_.pool1_stride_s, pool_name_, context);
}

Feature Pathway::Stage(size_t index, const Feature& x, const ForwardContext& context) const {
  const bool plain_on_gpu = context.recompute.plain && RunsOnGpu(x.value);
  if (context.trace != nullptr || (context.recompute.plain && !plain_on_gpu)) {
    at::Tensor y = x.value;
    for (const Bottleneck& block : stages_[index]) y = block.Forward(y, context);
    return {y, nullptr};
  }
  std::vector<BottleneckLayers> blocks;
  for (const Bottleneck& block : stages_[index]) blocks.push_back(block.Layers());
  if (plain_on_gpu) {
    return BottleneckStage(x, blocks, context.norm(), Keep::kConvolutions, /*keep_all=*/true);
  }
  return BottleneckStage(x, blocks, context.norm(), context.recompute.Of(Segments()[index + 1]));
}

std::vector<std::string> Pathway::Segments() const {
  std::vector<std::string> names = {stream_ + ".stem"};
  for (size_t i = 0; i < stages_.size(); ++i) {
    names.push_back(stream_ + ".layer" + std::to_string(i + 1));
  }
  return names;
}

int64_t PathwayChannels(const PathwayConfig& config, size_t stages) {
  if (stages == 0) return config.base_channels;
  return (config.base_channels << (stages - 1)) * Bottleneck::kExpansion;
}

}  // namespace kinefit
