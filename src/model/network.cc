#include "model/network.h"

#include <sstream>
#include <utility>

#include "files/error.h"
#include "model/layers.h"
#include "model/loss.h"
#include "model/pcan.h"
#include "model/resnet3d.h"
#include "model/two_stream.h"
#include "model/validate.h"

namespace kinefit {
namespace {

int64_t FeatureChannels(const PathwayConfig& pathway) {
  return PathwayChannels(pathway, pathway.stage_blocks.size());
}

// One pathway and mmaction2's I3DHead.
class SingleStreamNetwork : public Network {
 public:
  SingleStreamNetwork(const ModelConfig& config, TensorMaker maker)
      : is_rgb_(config.has_rgb()),
        in_channels_(Own(config).in_channels),
        backbone_(maker, "backbone", config.has_rgb() ? "rgb" : "pose", Own(config),
                  std::vector<int64_t>(Own(config).stage_blocks.size(), 0)),
        head_(maker, "cls_head.fc_cls", FeatureChannels(Own(config)), config.num_classes,
              config.head.dropout),
        head_config_(config.head) {}

  static std::unique_ptr<Network> Make(const ModelConfig& config,
                                       const at::TensorOptions& options) {
    NetworkTensors tensors;
    auto network = std::make_unique<SingleStreamNetwork>(config, TensorMaker(options, &tensors));
    network->tensors_ = std::move(tensors);
    return network;
  }

  NetworkOutput Forward(const NetworkInput& input, RandomStream& random) override {
    const ForwardContext context{training_, random, trace_, recompute_, share_};
    const at::Tensor& x = is_rgb_ ? input.imgs : input.heatmap_imgs;
    CheckInput(x, in_channels_, is_rgb_ ? "imgs" : "heatmap_imgs");
    Feature feature = backbone_.Stem(Cast(x), context);
    for (size_t i = 0; i < backbone_.stages(); ++i) feature = backbone_.Stage(i, feature, context);
    NetworkOutput output;
    output.logits.emplace_back(is_rgb_ ? "rgb" : "pose",
                               head_.Forward(AveragePool(feature.value), context));
    (is_rgb_ ? output.feature_rgb : output.feature_pose) = feature.value;
    return output;
  }

  std::vector<std::string> Segments() const override { return backbone_.Segments(); }
  Loss LossOf(const NetworkOutput& output, const at::Tensor& labels) override {
    return ComputeLoss(output, labels, head_config_);
  }
  std::vector<std::string> LossNames() const override { return {is_rgb_ ? "rgb" : "pose"}; }

 private:
  static const PathwayConfig& Own(const ModelConfig& config) {
    return config.has_rgb() ? config.rgb : config.pose;
  }

  bool is_rgb_;
  int64_t in_channels_;
  Pathway backbone_;
  Classifier head_;
  HeadConfig head_config_;
};

// RGBPoseConv3D with mmaction2's RGBPoseHead; rgbpose_attention with attention and a third, fused
// classifier.
class TwoStreamNetwork : public Network {
 public:
  TwoStreamNetwork(const ModelConfig& config, TensorMaker maker)
      : rgb_channels_(config.rgb.in_channels),
        pose_channels_(config.pose.in_channels),
        backbone_(maker, config),
        rgb_head_(MakeHead(maker, "rgb", FeatureChannels(config.rgb), config)),
        pose_head_(MakeHead(maker, "pose", FeatureChannels(config.pose), config)),
        head_config_(config.head) {
    if (config.type != "rgbpose_attention") return;
    fused_head_.emplace(MakeHead(
        maker, "fused", FeatureChannels(config.rgb) + FeatureChannels(config.pose), config));
  }

  static std::unique_ptr<Network> Make(const ModelConfig& config,
                                       const at::TensorOptions& options) {
    NetworkTensors tensors;
    auto network = std::make_unique<TwoStreamNetwork>(config, TensorMaker(options, &tensors));
    network->tensors_ = std::move(tensors);
    return network;
  }

  NetworkOutput Forward(const NetworkInput& input, RandomStream& random) override {
    const ForwardContext context{training_, random, trace_, recompute_, share_};
    CheckInput(input.imgs, rgb_channels_, "imgs");
    CheckInput(input.heatmap_imgs, pose_channels_, "heatmap_imgs");
    const TwoStreamFeatures features =
        backbone_.Forward(Cast(input.imgs), Cast(input.heatmap_imgs), context);
    const at::Tensor rgb = AveragePool(features.rgb.value);
    const at::Tensor pose = AveragePool(features.pose.value);
    NetworkOutput output;
    output.feature_rgb = features.rgb.value;
    output.feature_pose = features.pose.value;
    output.logits.emplace_back("rgb", rgb_head_.Forward(rgb, context));
    output.logits.emplace_back("pose", pose_head_.Forward(pose, context));
    if (fused_head_) {
      output.logits.emplace_back("fused", fused_head_->Forward(at::cat({rgb, pose}, 1), context));
    }
    return output;
  }

  std::vector<std::string> Segments() const override { return backbone_.Segments(); }
  Loss LossOf(const NetworkOutput& output, const at::Tensor& labels) override {
    return ComputeLoss(output, labels, head_config_);
  }
  std::vector<std::string> LossNames() const override {
    std::vector<std::string> names = {"rgb", "pose"};
    if (fused_head_) names.emplace_back("fused");
    return names;
  }

 private:
  static Classifier MakeHead(TensorMaker& maker, const std::string& stream, int64_t channels,
                             const ModelConfig& config) {
    return {maker, "cls_head.fc_" + stream, channels, config.num_classes, config.head.dropout};
  }

  int64_t rgb_channels_;
  int64_t pose_channels_;
  TwoStreamBackbone backbone_;
  Classifier rgb_head_;
  Classifier pose_head_;
  std::optional<Classifier> fused_head_;
  HeadConfig head_config_;
};

}  // namespace

void CheckInput(const at::Tensor& x, int64_t channels, const char* name) {
  if (!x.defined()) {
    throw Error(std::string("The network needs the input ") + name + ", which is missing");
  }
  if (x.dim() == 5 && x.size(1) == channels) return;
  std::ostringstream problem;
  problem << "The input " << name << " has shape " << x.sizes() << ", the network takes [N, "
          << channels << ", T, H, W]";
  throw Error(problem.str(), "",
              "in_channels of the pathway must be the number of colour channels or heatmaps");
}

const at::Tensor& NetworkOutput::at(const std::string& stream) const {
  for (const auto& [name, tensor] : logits) {
    if (name == stream) return tensor;
  }
  throw Error("The network has no stream \"" + stream + "\"");
}

bool MayBeMissing(const std::string& name) {
  return name.rfind("cls_head.fr_coarse_", 0) == 0 && name.find(".avg_f") != std::string::npos;
}

std::unique_ptr<Network> MakeNetwork(const ModelConfig& config, const at::TensorOptions& options) {
  ValidateModel(config);
  if (config.type == "pcan") return MakePcan(config, options);
  if (config.has_rgb() && config.has_pose()) return TwoStreamNetwork::Make(config, options);
  return SingleStreamNetwork::Make(config, options);
}

}  // namespace kinefit
