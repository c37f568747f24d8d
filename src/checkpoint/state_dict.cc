#include <algorithm>
#include <array>
#include <atomic>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "checkpoint/checkpoint.h"
#include "checkpoint/wrapped_names.h"
#include "files/error.h"

namespace kinefit {
namespace {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

const CheckpointValue* Member(const CheckpointDict& dict, const std::string& key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

// The tensors of `dict` under their names in the network; `removed` gets what wrappers had added.
NamedTensors TensorsOf(const CheckpointDict& dict, std::set<std::string>* removed = nullptr) {
  std::unordered_set<std::string> names;
  for (const auto& [name, value] : dict) names.insert(name);
  NamedTensors tensors;
  std::string wrapper;
  for (const auto& [name, value] : dict) {
    const auto* tensor = std::get_if<at::Tensor>(&value.value());
    if (tensor == nullptr || !tensor->defined()) continue;
    const std::string bare = UnwrappedName(name, &wrapper);
    const bool wrapped = !wrapper.empty() && names.count(bare) == 0;
    if (wrapped && removed != nullptr) removed->insert(wrapper);
    tensors.emplace_back(wrapped ? bare : name, *tensor);
  }
  return tensors;
}

// A dictionary of a checkpoint, and the path of keys to it ("" for the root).
struct Candidate {
  std::string where;
  const CheckpointDict* dict;
};

void FindCandidates(const CheckpointDict& dict, const std::string& where, int depth,
                    std::vector<Candidate>* found) {
  constexpr int kDeepest = 3;
  found->push_back({where, &dict});
  if (depth == kDeepest) return;
  for (const auto& [key, value] : dict) {
    const auto* member = std::get_if<CheckpointDict>(&value.value());
    if (member == nullptr || !MayHoldWeights(key)) continue;
    FindCandidates(*member, where.empty() ? key : where + "." + key, depth + 1, found);
  }
}

// Where a checkpoint keeps its weights: the dictionary with most tensors that the network knows or,
// if that says nothing, whose names end like a layer's; of equals the usual places first.
Candidate FindWeights(const CheckpointDict& root, const NamedTensors* network) {
  std::vector<Candidate> candidates;
  FindCandidates(root, "", 0, &candidates);
  const auto rank = [](const Candidate& candidate) {
    return candidate.where == "state_dict" ? 0 : candidate.where == "model" ? 1 : 2;
  };
  std::stable_sort(candidates.begin(), candidates.end(),
                   [&](const Candidate& a, const Candidate& b) { return rank(a) < rank(b); });
  std::unordered_set<std::string> known;
  if (network != nullptr) {
    for (const auto& [name, tensor] : *network) known.insert(name);
  }
  Candidate best{"", nullptr};
  std::array<size_t, 3> best_score = {0, 0, 0};
  for (const Candidate& candidate : candidates) {
    std::array<size_t, 3> score = {0, 0, 0};
    for (const auto& [name, tensor] : TensorsOf(*candidate.dict)) {
      score[0] += known.count(name);
      score[1] += EndsLikeAWeight(name) ? 1 : 0;
      score[2] = 1;
    }
    if (score <= best_score) continue;
    best = candidate;
    best_score = score;
  }
  return best;
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

std::string Listed(const std::string& title, const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  if (names.empty()) return "";
  std::string text = "\n" + title + " (" + std::to_string(names.size()) + "):";
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i) text += " " + names[i];
  return names.size() > kShown ? text + " ..." : text;
}

std::atomic<bool> nonfinite_allowed{false};

// Whether an entry of a file belongs to nothing that the network has: what preprocesses, losses,
// counters of tools. Layers beside the network's own are another matter: without them its parts do
// something else than they were trained for.
class ForeignEntries {
 public:
  explicit ForeignEntries(const NamedTensors& network) {
    for (const auto& [name, tensor] : network) parts_.insert(PartOf(name));
  }
  bool Has(const std::string& name, const at::Tensor& tensor) const {
    const std::string end = name.substr(name.rfind('.') + 1);
    if (end == "total_ops" || end == "total_params") return true;
    if (name.find('.') == std::string::npos) return tensor.dim() == 0;
    return parts_.count(PartOf(name)) == 0;
  }

 private:
  static std::string PartOf(const std::string& name) { return name.substr(0, name.find('.')); }

  std::unordered_set<std::string> parts_;
};

void RequireFinite(const NamedTensors& tensors, const std::string& path) {
  if (nonfinite_allowed) return;
  std::vector<std::string> bad;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.is_floating_point() && !at::isfinite(tensor).all().item<bool>()) bad.push_back(name);
  }
  if (bad.empty()) return;
  throw Error("the checkpoint's weights are not finite." + Listed("with NaN or infinity", bad),
              path, "use an earlier checkpoint; --allow-nonfinite goes on with it as it is");
}

std::string ShapeText(const at::Tensor& tensor) {
  std::string text = "[";
  for (const int64_t size : tensor.sizes()) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

}  // namespace

NamedTensors StateDictOf(const CheckpointDict& root, const std::string& path, bool ema,
                         const NamedTensors* network, std::string* said) {
  const Candidate place = FindWeights(root, network);
  if (place.dict == nullptr) {
    throw Error("the checkpoint holds no weights: no dictionary with tensors in it", path,
                "check that it is the right file");
  }
  std::set<std::string> removed;
  NamedTensors weights = TensorsOf(*place.dict, &removed);
  if (said != nullptr) {
    const bool usual = place.where.empty() || place.where == "state_dict" || place.where == "model";
    *said = usual ? "" : "found under \"" + place.where + "\"";
    std::string list;
    for (const std::string& prefix : removed)
      list += (list.empty() ? "\"" : ", \"") + prefix + "\"";
    if (!list.empty()) *said += (said->empty() ? "" : ", ") + ("without the wrappers' " + list);
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

void AllowNonfinite(bool allowed) { nonfinite_allowed = allowed; }

std::string LoadReport::Summary() const {
  std::string text = "loaded " + std::to_string(loaded) + " tensors";
  if (!source.empty()) text += ", " + source;
  text += Listed("passed over, of no part of the network", foreign);
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
  const ForeignEntries foreign(target);
  for (const auto& [name, tensor] : source) {
    if (wanted.count(name) != 0 || IsBatchCounter(name)) continue;
    (foreign.Has(name, tensor) ? report.foreign : report.unexpected).push_back(name);
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
  RequireFinite(copies, path);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < copies.size(); ++i) places[i].second.copy_(copies[i].second);
  return report;
}

LoadReport LoadWeights(const NamedTensors& target, const CheckpointDict& root, bool ema,
                       bool strict, const std::string& path) {
  std::string source;
  const NamedTensors weights = StateDictOf(root, path, ema, &target, &source);
  LoadReport report = LoadInto(target, weights, strict, path);
  report.source = source;
  return report;
}

}  // namespace kinefit
