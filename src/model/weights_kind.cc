#include "model/weights_kind.h"

#include "files/error.h"
#include "model/network.h"

namespace kinefit {

std::string KindOfWeights(const NamedTensors& weights) {
  for (const auto& [name, tensor] : weights) {
    if (name.rfind("backbone.featuredifference", 0) == 0) return "pcan";
    if (name.rfind("backbone.attention_", 0) == 0 || name == "cls_head.fc_fused.weight") {
      return "rgbpose_attention";
    }
  }
  return "";
}

void RequireKind(const NamedTensors& weights, const std::string& type, const std::string& where) {
  const std::string kind = KindOfWeights(weights);
  if (kind.empty() || kind == type) return;
  const std::string before =
      kind == "pcan" ? "" : " (which earlier versions of kinefit called pcan)";
  throw Error(
      "these are weights of the network " + kind + before + "; model.type is \"" + type + "\"",
      where, "set model.type = \"" + kind + "\", or give weights of \"" + type + "\"");
}

std::vector<std::string> WithoutOptional(const std::vector<std::string>& missing) {
  std::vector<std::string> result;
  for (const std::string& name : missing) {
    if (!MayBeMissing(name)) result.push_back(name);
  }
  return result;
}

}  // namespace kinefit
