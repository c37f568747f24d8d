#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "checkpoint/checkpoint.h"
#include "files/error.h"

namespace kinefit {
namespace {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

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

std::string FirstWord(const std::string& name) { return name.substr(0, name.find('.')); }

// Whether any of `names` begins with a word that the names of `network` begin with.
bool HasPartsOf(const NamedTensors& network, const std::vector<std::string>& names) {
  std::unordered_set<std::string> words;
  for (const auto& [name, tensor] : network) words.insert(FirstWord(name));
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return words.count(FirstWord(name)) > 0; });
}

void CheckFinite(const NamedTensors& tensors, const std::string& path) {
  constexpr size_t kShown = 3;
  std::vector<std::string> bad;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.is_floating_point() || at::isfinite(tensor).all().item<bool>()) continue;
    bad.push_back(name);
  }
  if (bad.empty()) return;
  std::string names;
  for (size_t i = 0; i < std::min(kShown, bad.size()); ++i) names += (i > 0 ? ", " : "") + bad[i];
  if (bad.size() > kShown) names += " ...";
  throw Error("the checkpoint holds NaN or infinite numbers in " + std::to_string(bad.size()) +
                  (bad.size() == 1 ? " tensor: " : " tensors: ") + names,
              path,
              "a network with these weights computes NaN: use an earlier checkpoint of that "
              "training, or go on all the same with --allow-nonfinite");
}

}  // namespace

std::string LoadReport::Summary() const {
  std::string text = "loaded " + std::to_string(loaded) + " tensors";
  if (clean()) return text;
  return text + Listed("missing in the file", missing) +
         Listed("unknown to the network", unexpected) + Listed("of another shape", mismatched);
}

std::string LoadReport::Lists() const {
  std::string text;
  const auto add = [&text](const char* title, const std::vector<std::string>& names) {
    if (names.empty()) return;
    text += std::string(title) + " (" + std::to_string(names.size()) + "):\n";
    for (const std::string& name : names) text += "  " + name + "\n";
  };
  add("missing in the file", missing);
  add("unknown to the network", unexpected);
  add("of another shape", mismatched);
  return text;
}

LoadReport LoadInto(const NamedTensors& target, const NamedTensors& source, bool strict,
                    const std::string& path) {
  LoadOptions options;
  options.strict = strict;
  return LoadInto(target, source, options, path);
}

LoadReport LoadInto(const NamedTensors& target, const NamedTensors& source,
                    const LoadOptions& options, const std::string& path) {
  LoadReport report;
  std::unordered_map<std::string, at::Tensor> by_name;
  for (const auto& [name, tensor] : source) by_name[name] = tensor;

  std::unordered_set<std::string> wanted;
  NamedTensors copies;  // what to copy, beside where to
  NamedTensors places;
  for (const auto& [name, tensor] : target) {
    wanted.insert(name);
    if (!IsBatchCounter(name)) ++report.wanted;
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
  report.complete =
      report.missing.empty() && report.mismatched.empty() && !HasPartsOf(target, report.unexpected);
  if ((options.strict && !report.clean()) || (options.complete && !report.complete)) {
    throw Error("the checkpoint is of another network: " + report.Summary(), path,
                "check that checkpoint and configuration belong together");
  }
  if (!options.allow_nonfinite) CheckFinite(copies, path);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < copies.size(); ++i) places[i].second.copy_(copies[i].second);
  return report;
}

}  // namespace kinefit
