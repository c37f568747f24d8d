#include "model/two_stream.h"

#include <algorithm>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "files/error.h"

namespace kinefit {
namespace {

bool IsActive(const PathwayConfig& pathway, size_t stage) {
  return !pathway.lateral_activate.empty() && pathway.lateral_activate[stage] != 0;
}

// Channels of the lateral that joins the input of each stage, 0 where there is none.
std::vector<int64_t> LateralChannels(const PathwayConfig& pathway, int64_t times, int64_t over) {
  std::vector<int64_t> channels;
  for (size_t i = 0; i < pathway.stage_blocks.size(); ++i) {
    channels.push_back(IsActive(pathway, i) ? PathwayChannels(pathway, i) * times / over : 0);
  }
  return channels;
}

std::vector<int64_t> RgbLateralChannels(const ModelConfig& config) {
  return LateralChannels(config.rgb, config.fusion.rgb_lateral_infl, config.fusion.channel_ratio);
}

std::vector<int64_t> PoseLateralChannels(const ModelConfig& config) {
  return LateralChannels(config.pose, config.fusion.channel_ratio, config.fusion.pose_lateral_infl);
}

ConvShape LateralShape(const FusionConfig& fusion, bool transposed) {
  ConvShape shape;
  shape.kernel = {fusion.fusion_kernel, 1, 1};
  shape.stride = {fusion.speed_ratio, 1, 1};
  shape.padding = {(fusion.fusion_kernel - 1) / 2, 0, 0};
  shape.transposed = transposed;
  // The result is to be exactly speed_ratio times as long.
  if (transposed) {
    shape.output_padding[0] = fusion.speed_ratio + 2 * shape.padding[0] - fusion.fusion_kernel;
  }
  return shape;
}

// The laterals into `pathway`, whose stage i stands beside stage i + other_offset of `other`.
std::map<size_t, ConvUnit> MakeLaterals(TensorMaker& maker, const std::string& prefix,
                                        const PathwayConfig& pathway, const PathwayConfig& other,
                                        const std::vector<int64_t>& channels,
                                        const FusionConfig& fusion, bool transposed) {
  std::map<size_t, ConvUnit> laterals;
  for (size_t i = 0; i < channels.size(); ++i) {
    if (!IsActive(pathway, i)) continue;
    // mmaction2 names a lateral after the layer behind which it stands.
    const std::string name =
        prefix + (i == 0 ? ".conv1" : ".layer" + std::to_string(i)) + "_lateral";
    const size_t beside = i + other.stage_blocks.size() - pathway.stage_blocks.size();
    laterals.emplace(i, ConvUnit(maker, name, PathwayChannels(other, beside), channels[i],
                                 LateralShape(fusion, transposed),
                                 transposed ? After::kBatchNormRelu : After::kNothing));
  }
  return laterals;
}

std::unique_ptr<CrossAttention> MakeAttention(TensorMaker& maker, const ModelConfig& config,
                                              const std::string& point, size_t stages_left) {
  const auto& points = config.attention.points;
  if (config.type != "rgbpose_attention" ||
      std::find(points.begin(), points.end(), point) == points.end()) {
    return nullptr;
  }
  return std::make_unique<CrossAttention>(
      maker, "backbone.attention_" + point,
      PathwayChannels(config.rgb, config.rgb.stage_blocks.size() - stages_left),
      PathwayChannels(config.pose, config.pose.stage_blocks.size() - stages_left), config);
}

Feature Concatenate(const Feature& x, const Feature& lateral, const char* stream) {
  for (int64_t i = 2; i < 5; ++i) {
    if (x.value.size(i) == lateral.value.size(i)) continue;
    std::ostringstream problem;
    problem << "The lateral connection into the " << stream << " stream brings features of shape "
            << lateral.value.sizes() << " to features of shape " << x.value.sizes();
    throw Error(problem.str(), "",
                "the pose clip must be fusion.speed_ratio times as long as the RGB clip, and "
                "heatmap and frame size must lead to the same size at the laterals");
  }
  Feature joined{at::cat({x.value, lateral.value}, 1), nullptr};
  // Worth it if less than the whole has to be kept for it.
  if (x.rebuild && joined.value.requires_grad()) {
    joined.rebuild = [a = KeptFeature(x), b = KeptFeature(lateral)] {
      return at::cat({a.Get(), b.Get()}, 1);
    };
  }
  return joined;
}

// `x` for the lateral that starts at it, where `x` is then joined with the lateral from the other
// stream: if nothing rebuilds it, it is taken out of `joined` again (to be filled in with what the
// next stage keeps anyway), so that it need not be kept beside it.
Feature WithinJoined(const Feature& x, const std::shared_ptr<at::Tensor>& joined) {
  if (x.rebuild || !x.value.requires_grad()) return x;
  const int64_t channels = x.value.size(1);
  return {x.value, [joined, channels] {
            TORCH_INTERNAL_ASSERT(joined->defined(), "asked for before the streams were joined");
            return joined->narrow(1, 0, channels).contiguous(joined->suggest_memory_format());
          }};
}

// Concatenate, for the stage behind; fills `joined` in where WithinJoined counts on it.
Feature Join(const Feature& x, const Feature& lateral, const char* stream,
             const std::shared_ptr<at::Tensor>& joined) {
  Feature result = Concatenate(x, lateral, stream);
  if (joined.use_count() > 1) {
    *joined = result.value.detach();
    result.kept_anyway = true;
  }
  return result;
}

// No gradient through the feature. Its value is kept: the layer that could rebuild it no longer
// waits for those who use it.
Feature Detached(const Feature& x) { return {x.value.detach(), nullptr}; }

}  // namespace

TwoStreamBackbone::TwoStreamBackbone(TensorMaker& maker, const ModelConfig& config)
    : fusion_(config.fusion),
      rgb_(maker, "backbone.rgb_path", "rgb", config.rgb, RgbLateralChannels(config)),
      rgb_laterals_(MakeLaterals(maker, "backbone.rgb_path", config.rgb, config.pose,
                                 RgbLateralChannels(config), config.fusion, false)),
      pose_(maker, "backbone.pose_path", "pose", config.pose, PoseLateralChannels(config)),
      pose_laterals_(MakeLaterals(maker, "backbone.pose_path", config.pose, config.rgb,
                                  PoseLateralChannels(config), config.fusion, true)),
      attention_stage3_(MakeAttention(maker, config, "stage3", 1)),
      attention_final_(MakeAttention(maker, config, "final", 0)) {
  if (config.type != "pcan") return;
  const size_t last = rgb_.stages() - 1;
  for (const size_t stage : {last - 1, last}) {
    const InteractionConfig& own = config.pcan;
    const size_t number = stage + 1 - last;
    const int64_t hidden = own.hidden.empty()
                               ? config.rgb.base_channels * static_cast<int64_t>(2 << number)
                               : own.hidden[number];
    interactions_.emplace(
        stage,
        FeatureInteraction(maker, "backbone.featuredifference" + std::to_string(stage),
                           PathwayChannels(config.rgb, stage),
                           PathwayChannels(config.pose, stage + pose_.stages() - rgb_.stages()),
                           hidden, config.fusion.speed_ratio, own.heads, own.attention_dropout));
  }
}

TwoStreamFeatures TwoStreamBackbone::Forward(const at::Tensor& imgs, const at::Tensor& heatmap_imgs,
                                             const ForwardContext& context) const {
  bool drop_rgb = false;
  bool drop_pose = false;
  if (context.training) {
    drop_rgb = context.random.Chance(fusion_.rgb_drop_path);
    drop_pose = context.random.Chance(fusion_.pose_drop_path);
  }
  // Each stem runs just before its first stage: backward passes run in the opposite order, so the
  // shorter stream's stem is done with before the longer one's first stage, where memory peaks when
  // most is recomputed.
  TwoStreamFeatures x;
  for (size_t left = std::max(rgb_.stages(), pose_.stages()); left > 0; --left) {
    const bool in_rgb = left <= rgb_.stages();
    const bool in_pose = left <= pose_.stages();
    if (left == rgb_.stages()) x.rgb = rgb_.Stem(imgs, context);
    if (left == pose_.stages()) x.pose = pose_.Stem(heatmap_imgs, context);
    if (in_rgb && in_pose) {
      Exchange(rgb_.stages() - left, pose_.stages() - left, drop_rgb, drop_pose, context, &x);
    }
    if (in_rgb) x.rgb = rgb_.Stage(rgb_.stages() - left, x.rgb, context);
    if (in_pose) x.pose = pose_.Stage(pose_.stages() - left, x.pose, context);
  }
  if (attention_final_) std::tie(x.rgb, x.pose) = attention_final_->Forward(x.rgb, x.pose, context);
  return x;
}

void TwoStreamBackbone::Exchange(size_t rgb_stage, size_t pose_stage, bool drop_rgb, bool drop_pose,
                                 const ForwardContext& context, TwoStreamFeatures* x) const {
  if (attention_stage3_ && rgb_stage + 1 == rgb_.stages()) {
    std::tie(x->rgb, x->pose) = attention_stage3_->Forward(x->rgb, x->pose, context);
  }
  const TwoStreamFeatures before = *x;
  const auto into_rgb = rgb_laterals_.find(rgb_stage);
  const auto into_pose = pose_laterals_.find(pose_stage);
  const bool both = into_rgb != rgb_laterals_.end() && into_pose != pose_laterals_.end();
  const auto joined_rgb = std::make_shared<at::Tensor>();
  const auto joined_pose = std::make_shared<at::Tensor>();
  // As in the reference, a dropped lateral is computed (its statistics move) but its result
  // replaced.
  // Behind a block, what the laterals read is not what they are joined to.
  const auto interaction = interactions_.find(rgb_stage);
  const bool interacts = interaction != interactions_.end();
  const auto run = [&](const ConvUnit& unit, const Feature& from, bool detach, bool drop,
                       const std::shared_ptr<at::Tensor>& joined, const std::string& stage) {
    const bool keep_output = context.recompute.Of(stage) == Keep::kConvolutions;
    Feature lateral = unit.Forward(detach               ? Detached(from)
                                   : both && !interacts ? WithinJoined(from, joined)
                                                        : from,
                                   context, keep_output);
    if (drop) lateral = {at::zeros_like(lateral.value.detach()), nullptr};
    return lateral;
  };
  Feature to_rgb;
  Feature to_pose;
  if (into_rgb != rgb_laterals_.end()) {
    to_rgb = run(into_rgb->second, before.pose, fusion_.rgb_detach, drop_rgb, joined_pose,
                 rgb_.Segments()[rgb_stage + 1]);
  }
  if (into_pose != pose_laterals_.end()) {
    to_pose = run(into_pose->second, before.rgb, fusion_.pose_detach, drop_pose, joined_rgb,
                  pose_.Segments()[pose_stage + 1]);
  }
  if (interacts) {
    std::tie(x->rgb, x->pose) = interaction->second.Forward(before.rgb, before.pose, context);
  }
  if (to_rgb.value.defined()) x->rgb = Join(x->rgb, to_rgb, "RGB", joined_rgb);
  if (to_pose.value.defined()) x->pose = Join(x->pose, to_pose, "pose", joined_pose);
}

std::vector<std::string> TwoStreamBackbone::Segments() const {
  std::vector<std::string> names = rgb_.Segments();
  for (const std::string& name : pose_.Segments()) names.push_back(name);
  return names;
}

}  // namespace kinefit
