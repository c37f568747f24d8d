#include "model/pcan.h"

#include <string>
#include <utility>
#include <vector>

#include "model/layers.h"
#include "model/loss.h"
#include "model/prototypes.h"
#include "model/two_stream.h"

namespace kinefit {
namespace {

constexpr double kRgbCalibration = 5;  // weight of the prototypes' cosines in evaluation
constexpr double kPoseCalibration = 1;
constexpr double kPrototypeLossShare = 0.2;

int64_t Channels(const PathwayConfig& pathway) {
  return PathwayChannels(pathway, pathway.stage_blocks.size());
}

// [N, C, T, H, W]: averaged over time, the maximum over all pixels: [N, C].
at::Tensor HighestPixel(const at::Tensor& feature) {
  const auto type = feature.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor moments = feature.mean(std::vector<int64_t>{2}, false, type);
  return std::get<0>(moments.flatten(2).max(2));
}

class Pcan : public Network {
 public:
  Pcan(const ModelConfig& config, TensorMaker maker, const at::Device& device)
      : config_(config),
        backbone_(maker, config),
        hierarchy_(config.groups, config.num_classes, device),
        fc_rgb_(MakeClassifier(maker, "fc_rgb", Channels(config.rgb), config.num_classes)),
        fc_pose_(MakeClassifier(maker, "fc_pose", Channels(config.pose), config.num_classes)),
        fc_rgb_coarse_(
            MakeClassifier(maker, "fc_rgb_coarse", Channels(config.rgb), hierarchy_.groups())),
        fc_pose_coarse_(
            MakeClassifier(maker, "fc_pose_coarse", Channels(config.pose), hierarchy_.groups())),
        coarse_rgb_(maker, "cls_head.fr_coarse_rgb", Channels(config.rgb), config.pcan.coarse_width,
                    hierarchy_.groups(), /*extra=*/true),
        coarse_pose_(maker, "cls_head.fr_coarse_pose", Channels(config.pose),
                     config.pcan.coarse_width, hierarchy_.groups(), /*extra=*/true),
        fine_rgb_(maker, "cls_head.fr_rgb", Channels(config.rgb), config.pcan.fine_width,
                  config.num_classes, /*extra=*/false),
        fine_pose_(maker, "cls_head.fr_pose", Channels(config.pose), config.pcan.fine_width,
                   config.num_classes, /*extra=*/false) {
    coarse_rgb_.MakeExtra(maker);
    coarse_pose_.MakeExtra(maker);
  }

  void Own(NetworkTensors tensors) { tensors_ = std::move(tensors); }

  NetworkOutput Forward(const NetworkInput& input, RandomStream& random) override {
    const ForwardContext context{training_, random, trace_, recompute_, share_};
    CheckInput(input.imgs, config_.rgb.in_channels, "imgs");
    CheckInput(input.heatmap_imgs, config_.pose.in_channels, "heatmap_imgs");
    const TwoStreamFeatures features =
        backbone_.Forward(Cast(input.imgs), Cast(input.heatmap_imgs), context);
    NetworkOutput output;
    output.feature_rgb = features.rgb.value;
    output.feature_pose = features.pose.value;
    const at::Tensor rgb = AveragePool(features.rgb.value);
    const at::Tensor pose = AveragePool(features.pose.value);
    at::Tensor fine_rgb = fc_rgb_.Forward(rgb, context);
    at::Tensor fine_pose = fc_pose_.Forward(pose, context);
    output.coarse.emplace_back("rgb_coarse", fc_rgb_coarse_.Forward(rgb, context));
    output.coarse.emplace_back("pose_coarse", fc_pose_coarse_.Forward(pose, context));
    if (training_) {
      output.highest_rgb = HighestPixel(features.rgb.value);
      output.highest_pose = HighestPixel(features.pose.value);
    } else if (trace_ == nullptr) {
      fine_rgb = fine_rgb + fine_rgb_.Similarity(rgb) * kRgbCalibration;
      fine_pose = fine_pose + fine_pose_.Similarity(pose) * kPoseCalibration;
    }
    output.logits.emplace_back("rgb", std::move(fine_rgb));
    output.logits.emplace_back("pose", std::move(fine_pose));
    return output;
  }

  // In the order and with the names of the published code, each with its weight.
  Loss LossOf(const NetworkOutput& output, const at::Tensor& labels) override {
    const at::Tensor groups = hierarchy_.GroupsOf(labels);
    const at::Tensor& rgb = output.at("rgb");
    const at::Tensor& pose = output.at("pose");
    const at::Tensor& rgb_coarse = output.coarse[0].second;
    const at::Tensor& pose_coarse = output.coarse[1].second;
    const double smoothing = config_.head.label_smoothing;
    const HeadConfig& head = config_.head;
    const auto right = [&](const at::Tensor& logits) {
      return logits.argmax(1).eq(groups).to(logits.scalar_type());
    };
    Loss loss;
    auto add = [&, i = size_t{0}](const at::Tensor& part) mutable {
      loss.parts.emplace_back(LossNames()[i++], part);
      loss.total = loss.total.defined() ? loss.total + part : part;
    };
    add(CrossEntropy(rgb, labels, smoothing) * head.rgb_loss_weight);
    add(CrossEntropy(pose, labels, smoothing) * head.pose_loss_weight);
    add(CrossEntropy(rgb_coarse, groups, smoothing) * head.rgb_coarse_loss_weight);
    add(CrossEntropy(pose_coarse, groups, smoothing) * head.pose_coarse_loss_weight);
    const auto share = [](const at::Tensor& part) { return part * kPrototypeLossShare; };
    add(share(coarse_rgb_.CoarseLoss(output.highest_rgb, rgb_coarse, groups)));
    add(share(coarse_pose_.CoarseLoss(output.highest_pose, pose_coarse, groups)));
    add(share(fine_rgb_.FineLoss(output.highest_rgb, rgb, labels, right(rgb_coarse))));
    add(share(fine_pose_.FineLoss(output.highest_pose, pose, labels, right(pose_coarse))));
    add(hierarchy_.TreeLoss(rgb_coarse, rgb, labels));
    add(hierarchy_.TreeLoss(pose_coarse, pose, labels));
    return loss;
  }

  std::vector<std::string> LossNames() const override {
    return {"rgb",           "pose",           "rgb_coarse", "pose_coarse",
            "rgb_fr_coarse", "pose_fr_coarse", "rgb_fr",     "pose_fr",
            "rgb_hierarchy", "pose_hierarchy"};
  }

  bool HasPrototypes() const override { return true; }
  std::vector<std::string> Segments() const override { return backbone_.Segments(); }

 private:
  Classifier MakeClassifier(TensorMaker& maker, const std::string& name, int64_t channels,
                            int64_t classes) const {
    return {maker, "cls_head." + name, channels, classes, config_.head.dropout};
  }

  const ModelConfig config_;
  TwoStreamBackbone backbone_;
  Hierarchy hierarchy_;
  Classifier fc_rgb_, fc_pose_, fc_rgb_coarse_, fc_pose_coarse_;
  Prototypes coarse_rgb_, coarse_pose_, fine_rgb_, fine_pose_;
};

}  // namespace

std::unique_ptr<Network> MakePcan(const ModelConfig& config, const at::TensorOptions& options) {
  NetworkTensors tensors;
  auto network = std::make_unique<Pcan>(config, TensorMaker(options, &tensors), options.device());
  network->Own(std::move(tensors));
  return network;
}

}  // namespace kinefit
