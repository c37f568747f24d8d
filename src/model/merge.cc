#include "model/merge.h"

#include <map>
#include <optional>
#include <string_view>

#include "files/error.h"

namespace kinefit {
namespace {

constexpr std::string_view kBackbone = "backbone.";

bool StartsWith(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

void CheckSingleStream(const NamedTensors& weights, const std::string& stream) {
  bool has_backbone = weights.empty();
  for (const auto& [name, tensor] : weights) {
    if (StartsWith(name, "backbone.rgb_path.") || StartsWith(name, "backbone.pose_path.")) {
      throw Error("The weights given for the " + stream +
                      " stream are already those of a two-stream network",
                  name, "give them as the initial weights of the whole network (train.init)");
    }
    has_backbone = has_backbone || StartsWith(name, kBackbone);
  }
  if (has_backbone) return;
  throw Error("The weights given for the " + stream + " stream hold no tensor named \"backbone.…\"",
              weights.front().first, "give a checkpoint of a single-stream network");
}

// The name in a two-stream network; `stream` is "rgb" or "pose".
std::string TwoStreamName(const std::string& name, const std::string& stream) {
  if (StartsWith(name, kBackbone)) {
    return "backbone." + stream + "_path." + name.substr(kBackbone.size());
  }
  constexpr std::string_view kHead = "cls_head.fc_cls.";
  if (StartsWith(name, kHead)) return "cls_head.fc_" + stream + "." + name.substr(kHead.size());
  return name;
}

// Zero weights for input channels that only the two-stream network has.
at::Tensor PadInputChannels(const std::string& name, const at::Tensor& weight,
                            const at::Tensor& target) {
  const bool meets_lateral =
      EndsWith(name, ".0.conv1.conv.weight") || EndsWith(name, ".0.downsample.conv.weight");
  if (!meets_lateral || weight.dim() != 5 || target.dim() != 5) return weight;
  std::vector<int64_t> padded = weight.sizes().vec();
  padded[1] = target.size(1);
  if (weight.size(1) >= target.size(1) || target.sizes() != at::IntArrayRef(padded)) return weight;
  at::Tensor result = at::zeros(padded, weight.options());
  result.narrow(1, 0, weight.size(1)).copy_(weight);
  return result;
}

using TensorsByName = std::map<std::string, at::Tensor>;

std::optional<at::Tensor> Find(const TensorsByName& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return std::nullopt;
  return found->second;
}

// Adds fc_fused so that its scores are the sum of the two streams' scores.
void AddFusedClassifier(const TensorsByName& target, const TensorsByName& merged,
                        NamedTensors* result) {
  const auto wanted = Find(target, "cls_head.fc_fused.weight");
  const auto rgb = Find(merged, "cls_head.fc_rgb.weight");
  const auto pose = Find(merged, "cls_head.fc_pose.weight");
  const auto rgb_bias = Find(merged, "cls_head.fc_rgb.bias");
  const auto pose_bias = Find(merged, "cls_head.fc_pose.bias");
  if (!wanted || !rgb || !pose || !rgb_bias || !pose_bias) return;
  if (rgb->dim() != 2 || pose->dim() != 2 || rgb->size(0) != pose->size(0)) return;
  const at::Tensor weight = at::cat({*rgb, *pose}, 1);
  if (weight.sizes() != wanted->sizes()) return;
  result->emplace_back("cls_head.fc_fused.weight", weight);
  result->emplace_back("cls_head.fc_fused.bias", *rgb_bias + *pose_bias);
}

}  // namespace

NamedTensors MergeSingleStreams(const NamedTensors& rgb, const NamedTensors& pose,
                                const Network& target) {
  const at::NoGradGuard no_grad;
  CheckSingleStream(rgb, "RGB");
  CheckSingleStream(pose, "pose");
  TensorsByName shapes;
  for (const auto& [name, tensor] : target.StateDict()) shapes.emplace(name, tensor);
  NamedTensors result;
  TensorsByName merged;
  const auto add = [&](const NamedTensors& weights, const std::string& stream) {
    for (const auto& [old_name, tensor] : weights) {
      const std::string name = TwoStreamName(old_name, stream);
      const auto there = Find(shapes, name);
      const at::Tensor fitted = there ? PadInputChannels(name, tensor, *there) : tensor;
      result.emplace_back(name, fitted);
      merged.emplace(name, fitted);
    }
  };
  add(rgb, "rgb");
  add(pose, "pose");
  AddFusedClassifier(shapes, merged, &result);
  return result;
}

}  // namespace kinefit
