#include "config/validate.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "config/annotation_source.h"
#include "files/error.h"

namespace kinefit {
namespace {

constexpr char kPacked[] = ".kfpack";  // stores hold the pictures themselves

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string Text(int64_t value) { return std::to_string(value); }

// Extent after a convolution or pool with an odd kernel and half of it as padding.
int64_t Strided(int64_t size, int64_t stride) { return (size - 1) / stride + 1; }

// Height or width (`temporal` false) or frames of a pathway's features after its stem and the
// first `stages` stages.
int64_t ExtentAfter(const PathwayConfig& pathway, size_t stages, int64_t size, bool temporal) {
  size = Strided(size, temporal ? pathway.conv1_stride_t : pathway.conv1_stride_s);
  size = Strided(size, temporal ? pathway.pool1_stride_t : pathway.pool1_stride_s);
  const std::vector<int64_t>& strides =
      temporal ? pathway.temporal_strides : pathway.spatial_strides;
  for (size_t i = 0; i < stages; ++i) size = Strided(size, strides[i]);
  return size;
}

int64_t HeatmapSize(int64_t image, const HeatmapConfig& heatmap) {
  return static_cast<int64_t>(static_cast<double>(image) * heatmap.scaling + 0.5);
}

class Checker {
 public:
  Checker(const Config& config, const Provenance* provenance)
      : config_(config), provenance_(provenance) {}

  void CheckAll() const {
    CheckMachine();
    if (config_.model.has_rgb()) CheckPathway(config_.model.rgb, "model.rgb");
    if (config_.model.has_pose()) CheckPathway(config_.model.pose, "model.pose");
    if (config_.model.has_rgb() && config_.model.has_pose()) CheckMeeting();
    if (config_.model.type == "rgbpose_attention") CheckAttention();
    CheckCrop();
    CheckJointPairs();
    if (config_.model.has_pose()) CheckHeatmaps();
    for (size_t i = 0; i < config_.train.schedule.size(); ++i) CheckSchedule(i);
    CheckTrain();
    CheckEval();
  }

  void CheckForTraining() const {
    const DataConfig& data = config_.data;
    const std::string train = SourceOf(data, Part::kTrain).annotations;
    Require(!train.empty(), "there is nothing to train on", {"data.annotations"},
            "name an annotation file");
    Require(config_.train.val_every == 0 || !SourceOf(data, Part::kVal).annotations.empty(),
            "there is nothing to validate on", {"data.val_annotations", "train.val_every"},
            "name an annotation file, or set train.val_every = 0");
    Require(!data.videos.empty() || !config_.model.has_rgb() || EndsWith(train, kPacked),
            "a network with an RGB stream needs videos", {"data.videos"},
            "name the folder of the videos or a packed store, or use model.type = \"pose\"");
    Require(data.flip == 0 || !config_.model.has_pose() || !data.left_joints.empty(),
            "mirrored skeletons need to know which joints swap sides",
            {"data.flip", "data.left_joints", "data.right_joints"},
            "list the joints in data.left_joints and data.right_joints, or set data.flip = 0");
  }

 private:
  void Require(bool fine, const std::string& problem, const std::vector<std::string>& keys,
               const std::string& remedy) const {
    if (fine) return;
    std::string where;
    for (const std::string& key : keys) {
      where += (where.empty() ? "" : ", ") + key;
      if (!provenance_) continue;
      const auto source = provenance_->find(key);
      where += " (" + (source == provenance_->end() ? "default" : source->second) + ")";
    }
    throw Error(problem, where, remedy);
  }

  void CheckMachine() const {
    const std::string& device = config_.device;
    const bool numbered = device.compare(0, 5, "cuda:") == 0 && device.size() > 5 &&
                          device.size() < 8 &&
                          device.find_first_not_of("0123456789", 5) == std::string::npos;
    Require(device == "cpu" || device == "cuda" || numbered,
            "there is no device called \"" + device + "\"", {"device"},
            "use \"cpu\", \"cuda\" or a numbered one such as \"cuda:1\"");
    Require(device != "cpu" || config_.train.precision != "fp16",
            "fp16 training needs a CUDA device", {"train.precision", "device"},
            "use train.precision = \"bf16\" or \"fp32\" on the CPU");
  }

  void CheckPathway(const PathwayConfig& pathway, const std::string& key) const {
    const size_t stages = pathway.stage_blocks.size();
    Require(stages >= 1 && stages <= 8, "a pathway has 1 to 8 stages, not " + Text(stages),
            {key + ".stage_blocks"}, "list the bottlenecks of each stage");
    CheckPerStage(pathway.inflate, stages, key, "inflate");
    CheckPerStage(pathway.spatial_strides, stages, key, "spatial_strides");
    CheckPerStage(pathway.temporal_strides, stages, key, "temporal_strides");
    if (config_.model.has_rgb() && config_.model.has_pose() && !pathway.lateral_activate.empty()) {
      CheckPerStage(pathway.lateral_activate, stages, key, "lateral_activate");
    }
    for (const int64_t size : pathway.conv1_kernel) {
      Require(size % 2 == 1, "the stem's kernel has an even size, " + Text(size),
              {key + ".conv1_kernel"}, "use odd sizes");
    }
    const bool rgb = key == "model.rgb";
    Require(!rgb || pathway.in_channels == 3,
            "frames have 3 channels, but the RGB stream takes " + Text(pathway.in_channels),
            {key + ".in_channels"}, "set it to 3");
  }

  void CheckPerStage(const std::vector<int64_t>& values, size_t stages, const std::string& key,
                     const std::string& name) const {
    Require(values.size() == stages,
            Text(values.size()) + " entries in " + key + "." + name + " for " + Text(stages) +
                " stages",
            {key + "." + name, key + ".stage_blocks"},
            "give one entry for each stage in " + key + ".stage_blocks");
  }

  // Both streams' features must have one shape wherever a lateral joins them.
  void CheckMeeting() const {
    const DataConfig& data = config_.data;
    const FusionConfig& fusion = config_.model.fusion;
    Require(fusion.fusion_kernel % 2 == 1, "the laterals' kernel is even",
            {"model.fusion.fusion_kernel"}, "use an odd number");
    Require(data.rgb_frames * fusion.speed_ratio == data.pose_frames,
            Text(data.rgb_frames) + " RGB frames x speed ratio " + Text(fusion.speed_ratio) +
                " are not the " + Text(data.pose_frames) + " pose frames",
            {"data.rgb_frames", "model.fusion.speed_ratio", "data.pose_frames"},
            "set data.pose_frames = " + Text(data.rgb_frames * fusion.speed_ratio) +
                ", or change the other two");
    const size_t rgb = config_.model.rgb.stage_blocks.size();
    const size_t pose = config_.model.pose.stage_blocks.size();
    // The streams are aligned at their last stages.
    for (size_t left = 1; left <= std::min(rgb, pose); ++left) {
      if (!HasLateral(config_.model.rgb, left) && !HasLateral(config_.model.pose, left)) continue;
      CheckMeetingPoint(rgb - left, pose - left);
    }
  }

  // True if a lateral joins the input of the stage `left` before the end.
  static bool HasLateral(const PathwayConfig& pathway, size_t left) {
    return !pathway.lateral_activate.empty() &&
           pathway.lateral_activate[pathway.lateral_activate.size() - left] != 0;
  }

  void CheckMeetingPoint(size_t rgb_stages, size_t pose_stages) const {
    const DataConfig& data = config_.data;
    const ModelConfig& model = config_.model;
    const std::string place = "after " + Text(rgb_stages) + " RGB and " + Text(pose_stages) +
                              " pose stages, where a lateral joins them";
    const int64_t rgb_frames = ExtentAfter(model.rgb, rgb_stages, data.rgb_frames, true);
    const int64_t pose_frames = ExtentAfter(model.pose, pose_stages, data.pose_frames, true);
    Require(
        rgb_frames * model.fusion.speed_ratio == pose_frames,
        "the streams are " + Text(rgb_frames) + " and " + Text(pose_frames) + " frames long " +
            place + ", which is not the speed ratio",
        {"model.rgb.temporal_strides", "model.pose.temporal_strides", "model.fusion.speed_ratio"},
        "use the same strides in time in both streams");
    for (const bool training : {true, false}) {
      const int64_t image = training ? data.crop : data.test_size;
      const int64_t heatmap = HeatmapSize(image, data.heatmap);
      const int64_t rgb_size = ExtentAfter(model.rgb, rgb_stages, image, false);
      const int64_t pose_size = ExtentAfter(model.pose, pose_stages, heatmap, false);
      Require(rgb_size == pose_size,
              "RGB features of " + Text(rgb_size) + "x" + Text(rgb_size) +
                  " meet pose features of " + Text(pose_size) + "x" + Text(pose_size) + " " +
                  place + " (frames " + Text(image) + "x" + Text(image) + ", heatmaps " +
                  Text(heatmap) + "x" + Text(heatmap) + ")",
              {training ? "data.crop" : "data.test_size", "data.heatmap.scaling",
               "model.rgb.spatial_strides", "model.pose.spatial_strides"},
              "with the strides of the default pathways, use data.heatmap.scaling = 0.25 and sizes "
              "that "
              "are multiples of 4");
    }
  }

  void CheckAttention() const {
    const AttentionConfig& attention = config_.model.attention;
    Require(attention.width % attention.heads == 0,
            "a width of " + Text(attention.width) + " cannot be divided by " +
                Text(attention.heads) + " heads",
            {"model.attention.width", "model.attention.heads"},
            "make the width a multiple of the heads");
    const std::set<std::string> points(attention.points.begin(), attention.points.end());
    Require(points.size() == attention.points.size(), "an attention point is listed twice",
            {"model.attention.points"}, "list each once");
  }

  void CheckCrop() const {
    const DataConfig& data = config_.data;
    Require(data.crop <= data.resize,
            "the crop of " + Text(data.crop) + " pixels is larger than the image of " +
                Text(data.resize) + " it is cut from",
            {"data.crop", "data.resize"}, "raise data.resize or lower data.crop");
    Require(data.crop_area_min <= data.crop_area_max,
            "the smallest crop is larger than the largest",
            {"data.crop_area_min", "data.crop_area_max"}, "swap them");
    Require(data.crop_aspect_min <= data.crop_aspect_max,
            "the smallest crop aspect is larger than the largest",
            {"data.crop_aspect_min", "data.crop_aspect_max"}, "swap them");
  }

  void CheckJointPairs() const {
    const DataConfig& data = config_.data;
    Require(data.left_joints.size() == data.right_joints.size(),
            Text(data.left_joints.size()) + " left joints for " + Text(data.right_joints.size()) +
                " right ones",
            {"data.left_joints", "data.right_joints"},
            "list each left joint and, at the same place, its right counterpart");
    std::set<int64_t> seen;
    for (const auto* side : {&data.left_joints, &data.right_joints}) {
      for (const int64_t joint : *side) {
        Require(seen.insert(joint).second, "joint " + Text(joint) + " is listed twice",
                {"data.left_joints", "data.right_joints"}, "every joint belongs to one pair");
      }
    }
    for (const std::vector<int64_t>& limb : data.limbs) {
      Require(limb.size() == 2, "a limb of " + Text(limb.size()) + " joints", {"data.limbs"},
              "each limb is a pair of joints, [from, to]");
    }
  }

  void CheckHeatmaps() const {
    const DataConfig& data = config_.data;
    const HeatmapConfig& heatmap = data.heatmap;
    const int64_t channels = config_.model.pose.in_channels;
    const int64_t limbs = heatmap.with_limbs ? static_cast<int64_t>(data.limbs.size()) : 0;
    Require(heatmap.with_joints || heatmap.with_limbs, "heatmaps of neither joints nor limbs",
            {"data.heatmap.with_joints", "data.heatmap.with_limbs"}, "turn one of them on");
    Require(!heatmap.with_limbs || limbs > 0, "there are no limbs to draw",
            {"data.heatmap.with_limbs", "data.limbs"}, "list data.limbs as pairs of joints");
    Require(heatmap.with_joints ? channels > limbs : channels == limbs,
            Text(channels) + " heatmap channels do not fit " + Text(limbs) + " limbs" +
                (heatmap.with_joints ? " and at least one joint" : " without joints"),
            {"model.pose.in_channels", "data.limbs", "data.heatmap.with_joints"},
            "model.pose.in_channels is the number of joints (with_joints) plus that of limbs "
            "(with_limbs)");
    Require(HeatmapSize(std::min(data.crop, data.test_size), heatmap) >= 4,
            "heatmaps would be smaller than 4x4",
            {"data.heatmap.scaling", "data.crop", "data.test_size"}, "make them larger");
    if (!heatmap.with_joints) return;  // then the number of joints is not known here
    CheckJointNumbers(data.left_joints, channels - limbs, "data.left_joints");
    CheckJointNumbers(data.right_joints, channels - limbs, "data.right_joints");
    for (const std::vector<int64_t>& limb : data.limbs) {
      if (heatmap.with_limbs) CheckJointNumbers(limb, channels - limbs, "data.limbs");
    }
  }

  void CheckJointNumbers(const std::vector<int64_t>& numbers, int64_t joints,
                         const std::string& key) const {
    for (const int64_t joint : numbers) {
      Require(joint < joints,
              "joint " + Text(joint) + " does not exist among " + Text(joints) +
                  " joints, counted from 0",
              {key, "model.pose.in_channels"},
              "correct the number, or set model.pose.in_channels to your skeleton's joints");
    }
  }

  void CheckSchedule(size_t index) const {
    const ScheduleConfig& schedule = config_.train.schedule[index];
    const std::string base = "train.schedule." + Text(index) + ".";
    Require(schedule.end == -1 || schedule.end > schedule.begin,
            "a schedule that ends at " + Text(schedule.end) + ", before it begins at " +
                Text(schedule.begin),
            {base + "begin", base + "end"}, "make end larger than begin, or -1 for no end");
    Require(!schedule.per_iteration || schedule.by_epoch,
            "per_iteration is for schedules that are counted in epochs",
            {base + "per_iteration", base + "by_epoch"},
            "set by_epoch = true, or leave per_iteration out");
    Require(schedule.t_max == -1 || schedule.t_max > 0, "a cosine of no length", {base + "t_max"},
            "make it at least 1, or -1 for end - begin");
    const std::vector<int64_t>& milestones = schedule.milestones;
    Require(schedule.type != "multistep" || !milestones.empty(), "a multistep without milestones",
            {base + "milestones"}, "list where the learning rate drops, for example [12, 16]");
    for (size_t i = 1; i < milestones.size(); ++i) {
      Require(milestones[i - 1] < milestones[i], "milestones that do not ascend",
              {base + "milestones"}, "sort them; each may stand once");
    }
    const TrainConfig& train = config_.train;
    Require(!schedule.by_epoch || train.iterations > 0 || schedule.begin < train.epochs,
            "a schedule that begins at epoch " + Text(schedule.begin) + " of " + Text(train.epochs),
            {base + "begin", "train.epochs"}, "it would never act: begin earlier or remove it");
  }

  void CheckTrain() const {
    const TrainConfig& train = config_.train;
    Require(train.early_stop == 0 || train.val_every > 0, "early stop without validation",
            {"train.early_stop", "train.val_every"}, "set train.val_every = 1");
    Require(!train.work_dir.empty(), "there is no folder for checkpoints", {"train.work_dir"},
            "name one");
    Require(!train.resume.empty(), "resume is empty", {"train.resume"},
            "use \"auto\", \"never\" or a checkpoint");
    const bool two = config_.model.has_rgb() && config_.model.has_pose();
    Require(two || (train.init_rgb.empty() && train.init_pose.empty()),
            "only two-stream networks start from single streams",
            {"train.init_rgb", "train.init_pose", "model.type"},
            "use train.init for a single-stream network");
    const std::vector<double>& weights = LossWeights();
    Require(std::any_of(weights.begin(), weights.end(), [](double w) { return w > 0; }),
            "every loss has weight 0",
            {"model.head.rgb_loss_weight", "model.head.pose_loss_weight",
             "model.head.fused_loss_weight"},
            "give at least one that the network has a positive weight");
  }

  std::vector<double> LossWeights() const {
    const HeadConfig& head = config_.model.head;
    std::vector<double> weights;
    if (config_.model.has_rgb()) weights.push_back(head.rgb_loss_weight);
    if (config_.model.has_pose()) weights.push_back(head.pose_loss_weight);
    if (config_.model.type == "rgbpose_attention") weights.push_back(head.fused_loss_weight);
    return weights;
  }

  void CheckEval() const {
    const EvalConfig& eval = config_.eval;
    const bool any = (config_.model.has_rgb() && eval.rgb_weight > 0) ||
                     (config_.model.has_pose() && eval.pose_weight > 0) ||
                     (config_.model.type == "rgbpose_attention" && eval.fused_weight > 0);
    Require(any, "every stream has weight 0 in the fused score",
            {"eval.rgb_weight", "eval.pose_weight", "eval.fused_weight"},
            "give at least one that the network has a positive weight");
  }

  const Config& config_;
  const Provenance* provenance_;
};

}  // namespace

void Validate(const Config& config, const Provenance* provenance) {
  Checker(config, provenance).CheckAll();
}

void ValidateTraining(const Config& config, const Provenance* provenance) {
  Checker(config, provenance).CheckAll();
  Checker(config, provenance).CheckForTraining();
}

}  // namespace kinefit
