#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "checkpoint/checkpoint.h"
#include "files/error.h"

namespace kinefit {
namespace {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

constexpr char kModule[] = "module.";  // put before every name by data-parallel wrappers
constexpr size_t kModuleSize = sizeof(kModule) - 1;

const CheckpointValue* Member(const CheckpointDict& dict, const std::string& key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

NamedTensors TensorsOf(const CheckpointDict& dict) {
  NamedTensors tensors;
  for (const auto& [name, value] : dict) {
    const auto* tensor = std::get_if<at::Tensor>(&value.value());
    if (tensor == nullptr || !tensor->defined()) continue;
    const bool wrapped = name.compare(0, kModuleSize, kModule) == 0;
    tensors.emplace_back(wrapped ? name.substr(kModuleSize) : name, *tensor);
  }
  return tensors;
}

// The averaged parameters of a kinefit checkpoint ("ema": {"state_dict": ...}) or of others that
// keep them apart ("ema_state_dict"). In mmengine's, recognised by its step counter, "state_dict"
// itself is the average and "ema_state_dict" what it was averaged from.
NamedTensors AveragedOf(const CheckpointDict& root) {
  if (const CheckpointValue* ema = Member(root, "ema")) {
    const CheckpointValue* weights = ema->Find("state_dict");
    if (weights != nullptr) return TensorsOf(weights->AsDict("ema.state_dict"));
  }
  const CheckpointValue* ema = Member(root, "ema_state_dict");
  if (ema == nullptr || ema->Find("steps") != nullptr) return {};
  return TensorsOf(ema->AsDict("ema_state_dict"));
}

bool IsBatchCounter(const std::string& name) {
  constexpr char kEnd[] = "num_batches_tracked";
  return name.size() >= sizeof(kEnd) - 1 &&
         name.compare(name.size() - sizeof(kEnd) + 1, std::string::npos, kEnd) == 0;
}

std::string ShapeText(const at::Tensor& tensor) {
  std::string text = "[";
  for (const int64_t size : tensor.sizes()) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

std::string Listed(const std::string& title, const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  if (names.empty()) return "";
  std::string text = "\n" + title + " (" + std::to_string(names.size()) + "):";
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i) text += " " + names[i];
  return names.size() > kShown ? text + " ..." : text;
}

}  // namespace

NamedTensors StateDictOf(const CheckpointDict& root, const std::string& path, bool ema) {
  NamedTensors weights;
  for (const char* key : {"state_dict", "model"}) {
    const CheckpointValue* member = Member(root, key);
    const auto* dict = member == nullptr ? nullptr : std::get_if<CheckpointDict>(&member->value());
    if (dict != nullptr) weights = TensorsOf(*dict);
    if (!weights.empty()) break;
  }
  if (weights.empty()) weights = TensorsOf(root);
  if (weights.empty()) {
    throw Error("the checkpoint holds no weights: no \"state_dict\" or \"model\" with tensors",
                path, "check that it is the right file");
  }
  if (!ema) return weights;
  std::unordered_map<std::string, at::Tensor> averaged;
  for (auto& [name, tensor] : AveragedOf(root)) averaged[name] = tensor;
  for (auto& [name, tensor] : weights) {
    const auto found = averaged.find(name);
    if (found != averaged.end()) tensor = found->second;  // buffers are not averaged
  }
  return weights;
}

std::string LoadReport::Summary() const {
  std::string text = "loaded " + std::to_string(loaded) + " tensors";
  if (clean()) return text;
  return text + Listed("missing in the file", missing) +
         Listed("unknown to the network", unexpected) + Listed("of another shape", mismatched);
}

LoadReport LoadInto(const NamedTensors& target, const NamedTensors& source, bool strict,
                    const std::string& path) {
  LoadReport report;
  std::unordered_map<std::string, at::Tensor> by_name;
  for (const auto& [name, tensor] : source) by_name[name] = tensor;

  std::unordered_set<std::string> wanted;
  NamedTensors copies;  // what to copy, beside where to
  NamedTensors places;
  for (const auto& [name, tensor] : target) {
    wanted.insert(name);
    const auto found = by_name.find(name);
    if (found == by_name.end()) {
      if (!IsBatchCounter(name)) report.missing.push_back(name);
    } else if (found->second.sizes() != tensor.sizes()) {
      report.mismatched.push_back(name + ": file " + ShapeText(found->second) + ", network " +
                                  ShapeText(tensor));
    } else {
      copies.emplace_back(name, found->second);
      places.emplace_back(name, tensor);
    }
  }
  for (const auto& [name, tensor] : source) {
    if (wanted.count(name) == 0 && !IsBatchCounter(name)) report.unexpected.push_back(name);
  }
  report.loaded = static_cast<int64_t>(copies.size());
  if (copies.empty() && !target.empty()) {
    throw Error("the checkpoint is of another network: none of its weights fit." +
                    Listed("missing in the file", report.missing) +
                    Listed("of another shape", report.mismatched),
                path, "check that checkpoint and configuration belong together");
  }
  if (strict && !report.clean()) {
    throw Error("the checkpoint does not fit the network: " + report.Summary(), path,
                "check that checkpoint and configuration belong together");
  }
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < copies.size(); ++i) places[i].second.copy_(copies[i].second);
  return report;
}

}  // namespace kinefit
