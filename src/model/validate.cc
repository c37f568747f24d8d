#include "model/validate.h"

#include <algorithm>
#include <string>
#include <vector>

#include "config/hierarchy.h"
#include "files/error.h"
#include "model/resnet3d.h"

namespace kinefit {
namespace {

void Require(bool condition, const std::string& problem, const std::string& where,
             const std::string& remedy) {
  if (!condition) throw Error(problem, where, remedy);
}

void RequirePositive(int64_t value, const std::string& key) {
  Require(value >= 1, "The value " + std::to_string(value) + " is not positive", key,
          "give a whole number of at least 1");
}

void RequirePerStage(const std::vector<int64_t>& values, size_t stages, int64_t minimum,
                     const std::string& key) {
  Require(values.size() == stages,
          "There are " + std::to_string(values.size()) + " entries for " + std::to_string(stages) +
              " stages",
          key, "give one entry per stage of stage_blocks");
  for (const int64_t value : values) {
    Require(value >= minimum, "The entry " + std::to_string(value) + " is too small", key,
            "give whole numbers of at least " + std::to_string(minimum));
  }
}

void ValidatePathway(const PathwayConfig& pathway, const std::string& key) {
  const size_t stages = pathway.stage_blocks.size();
  Require(stages >= 1 && stages <= 8, "A pathway has 1 to 8 stages", key + ".stage_blocks",
          "give the number of blocks of each stage");
  RequirePerStage(pathway.stage_blocks, stages, 1, key + ".stage_blocks");
  RequirePerStage(pathway.inflate, stages, 0, key + ".inflate");
  RequirePerStage(pathway.spatial_strides, stages, 1, key + ".spatial_strides");
  RequirePerStage(pathway.temporal_strides, stages, 1, key + ".temporal_strides");
  RequirePositive(pathway.in_channels, key + ".in_channels");
  RequirePositive(pathway.base_channels, key + ".base_channels");
  for (const int64_t size : pathway.conv1_kernel) RequirePositive(size, key + ".conv1_kernel");
  RequirePositive(pathway.conv1_stride_s, key + ".conv1_stride_s");
  RequirePositive(pathway.conv1_stride_t, key + ".conv1_stride_t");
  RequirePositive(pathway.pool1_stride_s, key + ".pool1_stride_s");
  RequirePositive(pathway.pool1_stride_t, key + ".pool1_stride_t");
}

// The laterals of one stream: `times` / `over` is how mmaction2 computes their width from the
// stream's own channels.
void ValidateLaterals(const ModelConfig& config, bool into_rgb) {
  const PathwayConfig& own = into_rgb ? config.rgb : config.pose;
  const PathwayConfig& other = into_rgb ? config.pose : config.rgb;
  const FusionConfig& fusion = config.fusion;
  const std::string key = into_rgb ? "model.rgb.lateral_activate" : "model.pose.lateral_activate";
  if (own.lateral_activate.empty()) return;
  const size_t stages = own.stage_blocks.size();
  RequirePerStage(own.lateral_activate, stages, 0, key);
  for (size_t i = 0; i < stages; ++i) {
    if (own.lateral_activate[i] == 0) continue;
    const std::string stage = "stage " + std::to_string(i + 1);
    Require(i + other.stage_blocks.size() >= stages,
            "The lateral into " + stage + " stands before the other stream's first stage", key,
            "activate it at a later stage");
    const int64_t channels = PathwayChannels(own, i);
    const int64_t there = PathwayChannels(other, i + other.stage_blocks.size() - stages);
    const int64_t rgb = into_rgb ? channels : there;
    const int64_t pose = into_rgb ? there : channels;
    Require(rgb == pose * fusion.channel_ratio,
            "At " + stage + " the RGB stream has " + std::to_string(rgb) +
                " channels and the pose stream " + std::to_string(pose) +
                ", but channel_ratio says " + std::to_string(fusion.channel_ratio) + " to 1",
            "model.fusion.channel_ratio", "change it or base_channels of one stream");
    const int64_t width = into_rgb ? channels * fusion.rgb_lateral_infl / fusion.channel_ratio
                                   : channels * fusion.channel_ratio / fusion.pose_lateral_infl;
    Require(width >= 1, "The lateral into " + stage + " has no channels left",
            into_rgb ? "model.fusion.rgb_lateral_infl" : "model.fusion.pose_lateral_infl",
            "widen the stream or change the factor");
  }
}

void ValidateFusion(const FusionConfig& fusion) {
  RequirePositive(fusion.speed_ratio, "model.fusion.speed_ratio");
  RequirePositive(fusion.channel_ratio, "model.fusion.channel_ratio");
  RequirePositive(fusion.rgb_lateral_infl, "model.fusion.rgb_lateral_infl");
  RequirePositive(fusion.pose_lateral_infl, "model.fusion.pose_lateral_infl");
  Require(fusion.fusion_kernel >= 1 && fusion.fusion_kernel % 2 == 1,
          "The temporal kernel of the laterals is " + std::to_string(fusion.fusion_kernel),
          "model.fusion.fusion_kernel", "give an odd number");
  Require(fusion.rgb_drop_path >= 0 && fusion.rgb_drop_path <= 1, "A chance is between 0 and 1",
          "model.fusion.rgb_drop_path", "");
  Require(fusion.pose_drop_path >= 0 && fusion.pose_drop_path <= 1, "A chance is between 0 and 1",
          "model.fusion.pose_drop_path", "");
}

void ValidateAttention(const AttentionConfig& attention) {
  RequirePositive(attention.heads, "model.attention.heads");
  RequirePositive(attention.width, "model.attention.width");
  RequirePositive(attention.chunk, "model.attention.chunk");
  Require(attention.width % attention.heads == 0,
          "The width " + std::to_string(attention.width) + " is not divisible by " +
              std::to_string(attention.heads) + " heads",
          "model.attention.width", "give a multiple of model.attention.heads");
  Require(attention.scope == "global" || attention.scope == "frame",
          "There is no scope \"" + attention.scope + "\"", "model.attention.scope",
          "use \"global\" or \"frame\"");
  for (const std::string& point : attention.points) {
    Require(point == "stage3" || point == "final", "There is no fusion point \"" + point + "\"",
            "model.attention.points", "use \"stage3\" and \"final\"");
  }
}

void ValidateGroups(const ModelConfig& config) {
  Require(!config.groups.empty(), "PCAN needs to know which classes make a group", "model.groups",
          "set data.hierarchy, or list the classes of each group, every class in exactly one");
  CheckGroups(config.groups, config.group_names, config.num_classes, "model.groups");
}

void ValidatePcan(const ModelConfig& config) {
  ValidateGroups(config);
  const InteractionConfig& own = config.pcan;
  RequirePositive(own.heads, "model.pcan.heads");
  Require(config.rgb.stage_blocks.size() >= 3 &&
              config.rgb.stage_blocks.size() == config.pose.stage_blocks.size() + 1,
          "PCAN's blocks stand before the last two stages, of an RGB stream with one stage more "
          "than the pose stream",
          "model.rgb.stage_blocks", "give the RGB stream one stage more than the pose stream");
  Require(own.hidden.empty() || own.hidden.size() == 2,
          "There are " + std::to_string(own.hidden.size()) + " widths for two interaction blocks",
          "model.pcan.hidden", "give two, or none");
  for (size_t i = 0; i < 2; ++i) {
    const int64_t hidden = own.hidden.empty()
                               ? config.rgb.base_channels * static_cast<int64_t>(2 << i)
                               : own.hidden[i];
    Require(hidden % own.heads == 0,
            "The interaction block's " + std::to_string(hidden) +
                " channels are not divisible by " + std::to_string(own.heads) + " heads",
            "model.pcan.hidden", "give multiples of model.pcan.heads");
  }
}

}  // namespace

void ValidateModel(const ModelConfig& config) {
  static const std::vector<std::string> kTypes = {"rgbpose", "pcan", "rgbpose_attention", "rgb",
                                                  "pose"};
  Require(std::find(kTypes.begin(), kTypes.end(), config.type) != kTypes.end(),
          "There is no network of type \"" + config.type + "\"", "model.type",
          "use \"rgbpose\", \"pcan\", \"rgbpose_attention\", \"rgb\" or \"pose\"");
  RequirePositive(config.num_classes, "model.num_classes");
  Require(config.head.dropout >= 0 && config.head.dropout <= 1, "A chance is between 0 and 1",
          "model.head.dropout", "");
  if (config.has_rgb()) ValidatePathway(config.rgb, "model.rgb");
  if (config.has_pose()) ValidatePathway(config.pose, "model.pose");
  if (!config.has_rgb() || !config.has_pose()) return;
  ValidateFusion(config.fusion);
  ValidateLaterals(config, /*into_rgb=*/true);
  ValidateLaterals(config, /*into_rgb=*/false);
  if (config.type == "pcan") ValidatePcan(config);
  if (config.type == "rgbpose_attention") ValidateAttention(config.attention);
}

}  // namespace kinefit
