#include "model/interaction.h"

#include <cmath>
#include <vector>

#include "files/error.h"
#include "ops/dropout.h"
#include "ops/feature_interaction.h"
#include "ops/layer_scope.h"

namespace kinefit {

// As PyTorch leaves its layers: weight and bias within 1 / sqrt(fan in).
FeatureInteraction::Layer FeatureInteraction::MakeLayer(TensorMaker& maker, const std::string& name,
                                                        const std::vector<int64_t>& shape,
                                                        int64_t outputs, double fan_in) {
  const double bound = 1 / std::sqrt(fan_in);
  Layer layer;
  layer.weight = maker.Parameter(name + ".weight", shape, Initial::kBounded, bound);
  layer.bias = maker.Parameter(name + ".bias", {outputs}, Initial::kBounded, bound);
  return layer;
}

FeatureInteraction::Attention FeatureInteraction::MakeAttention(TensorMaker& maker,
                                                                const std::string& name,
                                                                int64_t hidden) {
  const auto linear = [&](const char* part) {
    return MakeLayer(maker, name + part, {hidden, hidden}, hidden, static_cast<double>(hidden));
  };
  Attention attention;
  attention.query = linear(".q_proj");
  attention.key = linear(".k_proj");
  attention.value = linear(".v_proj");
  attention.output = linear(".fc");
  return attention;
}

FeatureInteraction::FeatureInteraction(TensorMaker& maker, const std::string& name,
                                       int64_t rgb_channels, int64_t pose_channels, int64_t hidden,
                                       int64_t moments, int64_t heads, double dropout)
    : name_(name), hidden_(hidden), heads_(heads), dropout_(dropout) {
  const auto wide = static_cast<double>(hidden);
  shrink_rgb_ = MakeLayer(maker, name + ".conv1", {hidden, rgb_channels, 1, 1, 1}, hidden,
                          static_cast<double>(rgb_channels));
  shrink_pose_ = MakeLayer(maker, name + ".conv2", {hidden, pose_channels, moments, 1, 1}, hidden,
                           static_cast<double>(pose_channels * moments));
  widen_rgb_ =
      MakeLayer(maker, name + ".conv4", {rgb_channels, hidden, 1, 1, 1}, rgb_channels, wide);
  // A transposed one: PyTorch counts its outputs.
  widen_pose_ = MakeLayer(maker, name + ".conv5", {hidden, pose_channels, moments, 1, 1},
                          pose_channels, static_cast<double>(pose_channels * moments));
  rgb_ = MakeAttention(maker, name + ".rgb_cross_attn", hidden);
  pose_ = MakeAttention(maker, name + ".skt_cross_attn", hidden);
}

// softmax(q k^T / sqrt(d)) v for each head, queries from `from`, keys and values from `to`.
at::Tensor FeatureInteraction::Attend(const Attention& attention, const at::Tensor& from,
                                      const at::Tensor& to, const ForwardContext& context) const {
  const int64_t n = from.size(0);
  const int64_t dim = hidden_ / heads_;
  const auto heads = [&](const at::Tensor& x, const Layer& layer) {
    return at::linear(x, layer.weight, layer.bias)
        .view({n, x.size(1), heads_, dim})
        .transpose(1, 2);  // [N, heads, T, dim]
  };
  const at::Tensor q = heads(from, attention.query);
  const at::Tensor k = heads(to, attention.key);
  const at::Tensor v = heads(to, attention.value);
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  at::Tensor weights = at::softmax(at::matmul(q, k.transpose(2, 3)) * scale, 3);
  if (context.training && dropout_ > 0) {
    weights = weights * DropoutMask(weights, context.share.first_row, dropout_, context.random);
  }
  const at::Tensor found =
      at::matmul(weights, v).transpose(1, 2).reshape({n, from.size(1), hidden_});
  return at::linear(found, attention.output.weight, attention.output.bias);
}

std::pair<Feature, Feature> FeatureInteraction::Forward(const Feature& rgb, const Feature& pose,
                                                        const ForwardContext& context) const {
  const LayerScope scope(name_);
  const int64_t moments = widen_pose_.weight.size(2);
  if (pose.value.size(2) != rgb.value.size(2) * moments) {
    throw Error("where the streams interact the pose stream has " +
                    std::to_string(pose.value.size(2)) + " frames and the RGB stream " +
                    std::to_string(rgb.value.size(2)),
                "data.pose_frames",
                "it must be model.fusion.speed_ratio (" + std::to_string(moments) +
                    ") times data.rgb_frames");
  }
  if (context.trace != nullptr) {
    Trace(rgb, pose, context.trace);
    return {rgb, pose};
  }
  const at::Tensor a = PooledProjection(rgb, shrink_rgb_.weight, shrink_rgb_.bias);
  const at::Tensor b = PooledProjection(pose, shrink_pose_.weight, shrink_pose_.bias);
  const at::Tensor of_rgb = Attend(rgb_, a, b, context);
  const at::Tensor of_pose = Attend(pose_, b, of_rgb, context);
  const int64_t n = a.size(0);
  // [N, T, C] -> [N, C, T].
  const at::Tensor rgb_factor =
      at::linear(of_rgb, widen_rgb_.weight.reshape({-1, hidden_}), widen_rgb_.bias).transpose(1, 2);
  // Every moment's token makes `moments` frames: [N, T, C' * moments] -> [N, C', T * moments].
  const int64_t channels = widen_pose_.weight.size(1);
  const at::Tensor frames =
      at::matmul(of_pose, widen_pose_.weight.reshape({hidden_, channels * moments}));
  const at::Tensor pose_factor =
      frames.view({n, -1, channels, moments}).permute({0, 2, 1, 3}).reshape({n, channels, -1}) +
      widen_pose_.bias.view({1, -1, 1});
  return {ScaledByMoment(rgb, rgb_factor), ScaledByMoment(pose, pose_factor)};
}

void FeatureInteraction::Trace(const Feature& rgb, const Feature& pose, LayerTrace* trace) const {
  const auto record = [&](const std::string& part, const std::string& kind, const Layer& layer,
                          const std::vector<int64_t>& output, int64_t positions, int64_t kept) {
    trace->Record({name_ + part, kind, output, layer.weight.numel() + layer.bias.numel(),
                   layer.weight.numel() * positions, kept});
  };
  const int64_t n = rgb.value.size(0);
  const int64_t t = rgb.value.size(2);
  const std::vector<int64_t> tokens = {n, t, hidden_};
  const int64_t token_bytes = n * t * hidden_ * 4;
  const auto pixels = [](const Feature& x) { return x.value.size(3) * x.value.size(4); };
  record(".conv1", "conv + max over pixels", shrink_rgb_, tokens, n * t * pixels(rgb), token_bytes);
  record(".conv2", "conv + max over pixels", shrink_pose_, tokens, n * t * pixels(pose),
         token_bytes);
  for (const auto& [name, attention] :
       {std::make_pair(".rgb_cross_attn", &rgb_), std::make_pair(".skt_cross_attn", &pose_)}) {
    for (const auto& [part, layer] :
         {std::make_pair(".q_proj", &attention->query), std::make_pair(".k_proj", &attention->key),
          std::make_pair(".v_proj", &attention->value),
          std::make_pair(".fc", &attention->output)}) {
      record(std::string(name) + part, "linear", *layer, tokens, n * t, token_bytes);
    }
  }
  const auto bytes = [](const Feature& x) {
    return x.value.numel() * static_cast<int64_t>(x.value.dtype().itemsize());
  };
  record(".conv4", "conv + scale", widen_rgb_, rgb.value.sizes().vec(), n * t, bytes(rgb));
  record(".conv5", "transposed conv + scale", widen_pose_, pose.value.sizes().vec(), n * t,
         bytes(pose));
}

}  // namespace kinefit
