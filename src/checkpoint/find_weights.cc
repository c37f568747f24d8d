#include <algorithm>
#include <array>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "checkpoint/checkpoint.h"
#include "files/error.h"

namespace kinefit {
namespace {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
using Names = std::unordered_set<std::string>;

// Where others keep weights, besides the root itself: the usual ones first.
constexpr std::array<std::string_view, 12> kUsualKeys = {
    "state_dict", "model",  "model_state_dict", "model_state", "net",       "network",
    "net_state",  "params", "params_ema",       "weights",     "generator", "module"};
// Words that wrappers of modules put into the names of everything within them.
constexpr std::array<std::string_view, 4> kWrappers = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"};
constexpr int kDeepest = 4;  // nesting of dicts that is looked at

const CheckpointValue* Member(const CheckpointDict& dict, std::string_view key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

bool IsWrapper(std::string_view word) {
  return std::find(kWrappers.begin(), kWrappers.end(), word) != kWrappers.end();
}

// The name without the words of wrappers, wherever they stand.
std::string Unwrapped(const std::string& name) {
  std::string result;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view word = std::string_view(name).substr(begin, end - begin);
    if (!IsWrapper(word)) {
      if (!result.empty()) result += '.';
      result += word;
    }
    begin = end + 1;
  }
  return result;
}

NamedTensors TensorsOf(const CheckpointDict& dict) {
  NamedTensors tensors;
  for (const auto& [name, value] : dict) {
    const auto* tensor = std::get_if<at::Tensor>(&value.value());
    if (tensor != nullptr && tensor->defined()) tensors.emplace_back(Unwrapped(name), *tensor);
  }
  return tensors;
}

// The name without its first `words` words; "" if it has no more.
std::string WithoutWords(const std::string& name, int words) {
  size_t at = 0;
  for (int i = 0; i < words; ++i) {
    at = name.find('.', at);
    if (at == std::string::npos) return "";
    ++at;
  }
  return name.substr(at);
}

// How many words all names should lose at their front so that most of them are wanted, and how many
// then are.
struct Fit {
  int words = 0;
  size_t hits = 0;
};

Fit FitTo(const Names& wanted, const NamedTensors& tensors) {
  Fit best;
  for (int words = 0; words <= 3; ++words) {
    size_t hits = 0;
    for (const auto& [name, tensor] : tensors) hits += wanted.count(WithoutWords(name, words));
    if (hits > best.hits) best = {words, hits};
  }
  return best;
}

struct Candidate {
  std::string key;  // "" = the root
  NamedTensors tensors;
  Fit fit;
};

void Collect(const CheckpointDict& dict, const std::string& key, int depth,
             std::vector<Candidate>* found) {
  NamedTensors tensors = TensorsOf(dict);
  if (!tensors.empty()) found->push_back({key, std::move(tensors), {}});
  if (depth == kDeepest) return;
  for (const auto& [name, value] : dict) {
    const auto* inner = std::get_if<CheckpointDict>(&value.value());
    // Moments of optimizers have the names of weights, too.
    if (inner == nullptr || name.find("optim") != std::string::npos) continue;
    Collect(*inner, key.empty() ? name : key + "." + name, depth + 1, found);
  }
}

size_t RankOf(const std::string& key) {
  const auto* at = std::find(kUsualKeys.begin(), kUsualKeys.end(), key);
  return static_cast<size_t>(at - kUsualKeys.begin());
}

// Whether `a` is the likelier place of the weights.
bool Better(const Candidate& a, const Candidate& b) {
  if (a.fit.hits != b.fit.hits) return a.fit.hits > b.fit.hits;
  const size_t rank_a = RankOf(a.key);
  const size_t rank_b = RankOf(b.key);
  if (rank_a != rank_b) return rank_a < rank_b;
  return a.tensors.size() > b.tensors.size();
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

void DropWords(int words, NamedTensors* tensors) {
  if (words == 0) return;
  NamedTensors kept;
  for (auto& [name, tensor] : *tensors) {
    std::string rest = WithoutWords(name, words);
    if (rest.empty()) rest = name;
    kept.emplace_back(std::move(rest), tensor);
  }
  *tensors = std::move(kept);
}

std::string NoteOn(const Candidate& chosen) {
  std::string note;
  if (chosen.key != "state_dict" && !chosen.key.empty()) {
    note = "weights taken from \"" + chosen.key + "\"";
  }
  if (chosen.fit.words == 0) return note;
  const std::string& name = chosen.tensors.front().first;
  const std::string rest = WithoutWords(name, chosen.fit.words);
  return note + (note.empty() ? "" : ", ") + "\"" + name.substr(0, name.size() - rest.size()) +
         "\" taken off their names";
}

}  // namespace

FoundWeights FindWeights(const CheckpointDict& root, const std::string& path, bool ema,
                         const std::vector<std::string>& wanted) {
  std::vector<Candidate> candidates;
  Collect(root, "", 0, &candidates);
  if (candidates.empty()) {
    throw Error("the checkpoint holds no weights: there are no tensors in it", path,
                "check that it is the right file");
  }
  const Names names(wanted.begin(), wanted.end());
  for (Candidate& candidate : candidates) candidate.fit = FitTo(names, candidate.tensors);
  Candidate& chosen = *std::min_element(candidates.begin(), candidates.end(), Better);
  FoundWeights found{chosen.tensors, NoteOn(chosen)};
  NamedTensors averaged = ema ? AveragedOf(root) : NamedTensors();
  DropWords(chosen.fit.words, &found.tensors);
  DropWords(FitTo(names, averaged).words, &averaged);
  std::unordered_map<std::string, at::Tensor> by_name;
  for (auto& [name, tensor] : averaged) by_name[name] = tensor;
  for (auto& [name, tensor] : found.tensors) {
    const auto average = by_name.find(name);
    if (average != by_name.end()) tensor = average->second;  // buffers are not averaged
  }
  return found;
}

NamedTensors StateDictOf(const CheckpointDict& root, const std::string& path, bool ema) {
  return FindWeights(root, path, ema, {}).tensors;
}

}  // namespace kinefit
