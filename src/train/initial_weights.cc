#include "train/initial_weights.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "checkpoint/checkpoint.h"
#include "dataset/annotation_reader.h"
#include "files/error.h"
#include "files/publish.h"
#include "model/merge.h"

namespace kinefit {
namespace {

using Names = std::vector<std::string>;

constexpr double kLeastShare = 0.5;  // of the tensors, below which it is another network
constexpr char kListName[] = "initial_weights.txt";

bool StartsWith(const std::string& text, const std::string& start) {
  return text.compare(0, start.size(), start) == 0;
}

// What a single-stream network calls the tensors of one stream of a two-stream network.
Names SingleStreamNames(const Network& network, const std::string& stream) {
  const std::string backbone = "backbone." + stream + "_path.";
  const std::string head = "cls_head.fc_" + stream + ".";
  Names names;
  for (const auto& [name, tensor] : network.StateDict()) {
    if (StartsWith(name, backbone)) names.push_back("backbone." + name.substr(backbone.size()));
    if (StartsWith(name, head)) names.push_back("cls_head.fc_cls." + name.substr(head.size()));
  }
  return names;
}

NamedTensors WeightsOf(const std::string& path, const std::string& key, const Names& wanted,
                       Names* lines) {
  if (path.empty()) return {};
  RequireThere(path, key);
  FoundWeights found = FindWeights(ReadCheckpoint(path), path, /*ema=*/true, wanted);
  if (!found.note.empty()) lines->push_back(path + ": " + found.note);
  return std::move(found.tensors);
}

// A part of a network as people speak of it, and how much of it was found.
struct Part {
  std::string name;
  int64_t tensors = 0;
  int64_t missing = 0;
};

std::string PartOf(const std::string& name) {
  if (name.find("lateral") != std::string::npos) return "laterals";
  if (StartsWith(name, "backbone.rgb_path.") || StartsWith(name, "cls_head.fc_rgb.")) {
    return "RGB stream";
  }
  if (StartsWith(name, "backbone.pose_path.") || StartsWith(name, "cls_head.fc_pose.")) {
    return "pose stream";
  }
  if (name.find("fc_fused") != std::string::npos) return "fused classifier";
  return StartsWith(name, "backbone.") ? "attention" : "rest of the head";
}

std::vector<Part> PartsOf(const Network& network, const LoadReport& report) {
  std::set<std::string> lost(report.missing.begin(), report.missing.end());
  for (const std::string& line : report.mismatched)
    lost.insert(line.substr(0, line.find(": file")));
  std::vector<Part> parts;
  for (const auto& [name, tensor] : network.StateDict()) {
    if (!tensor.is_floating_point()) continue;  // counters of batches, which may be missing
    const std::string part = PartOf(name);
    auto at =
        std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.name == part; });
    if (at == parts.end()) at = parts.insert(parts.end(), {part});
    ++at->tensors;
    at->missing += static_cast<int64_t>(lost.count(name));
  }
  return parts;
}

// "RGB stream 100 %, pose stream 98 %, new: laterals, attention".
std::string PartsText(const std::vector<Part>& parts) {
  std::string found;
  std::string fresh;
  for (const Part& part : parts) {
    if (part.missing == part.tensors) {
      fresh += (fresh.empty() ? "" : ", ") + part.name;
      continue;
    }
    const int64_t percent = 100 * (part.tensors - part.missing) / part.tensors;
    found += (found.empty() ? "" : ", ") + part.name + " " + std::to_string(percent) + " %";
  }
  return found + (fresh.empty() ? "" : ", new: " + fresh);
}

[[noreturn]] void TooLittle(const std::string& what, const std::string& files,
                            const LoadReport& report) {
  throw Error("the initial weights are of another network: " + what + ". " + report.Summary(),
              files, "start from a checkpoint of the same kind of network, or leave this out");
}

// Long lists go whole into a file, whose name is returned.
std::string WriteLists(const Config& config, const std::string& files, const LoadReport& report) {
  const std::string path = config.train.work_dir + "/" + kListName;
  MakeFolder(config.train.work_dir);
  PublishFile(path, "initial weights from " + files + "\n" + report.Lists());
  return path;
}

// One line on what was loaded.
std::string LineOn(const Config& config, const Network& network, const std::string& files,
                   const LoadReport& report) {
  std::string line =
      "initial weights from " + files + ": " + std::to_string(report.loaded) + " tensors";
  if (config.model.has_rgb() && config.model.has_pose()) {
    line += "; " + PartsText(PartsOf(network, report));
  } else if (!report.clean()) {
    line += " of " + std::to_string(report.wanted);
  }
  if (report.clean()) return line;
  return line + " (what differs is listed in " + WriteLists(config, files, report) + ")";
}

LoadReport Load(const Config& config, const NamedTensors& targets, const NamedTensors& weights,
                const std::string& files) {
  LoadOptions options;
  options.strict = config.train.init_strict;
  options.allow_nonfinite = config.train.init_nonfinite;
  return LoadInto(targets, weights, options, files);
}

Names LoadOne(const Config& config, const NamedTensors& targets, Network& network) {
  const std::string& file = config.train.init;
  Names lines;
  Names wanted;
  for (const auto& [name, tensor] : targets) wanted.push_back(name);
  const LoadReport report =
      Load(config, targets, WeightsOf(file, "train.init", wanted, &lines), file);
  if (static_cast<double>(report.loaded) < kLeastShare * static_cast<double>(report.wanted)) {
    TooLittle("only " + std::to_string(report.loaded) + " of its " + std::to_string(report.wanted) +
                  " tensors are there",
              file, report);
  }
  lines.push_back(LineOn(config, network, file, report));
  return lines;
}

Names LoadTwo(const Config& config, const NamedTensors& targets, Network& network) {
  const TrainConfig& train = config.train;
  const bool both = !train.init_rgb.empty() && !train.init_pose.empty();
  const std::string files = train.init_rgb + (both ? " and " : "") + train.init_pose;
  Names lines;
  const NamedTensors rgb =
      WeightsOf(train.init_rgb, "train.init_rgb", SingleStreamNames(network, "rgb"), &lines);
  const NamedTensors pose =
      WeightsOf(train.init_pose, "train.init_pose", SingleStreamNames(network, "pose"), &lines);
  // Two files say nothing about what joins the streams, so a merge is never complete.
  const LoadReport report = Load(config, targets, MergeSingleStreams(rgb, pose, network), files);
  for (const Part& part : PartsOf(network, report)) {
    const bool given =
        part.name == "RGB stream" ? !rgb.empty() : part.name == "pose stream" && !pose.empty();
    const int64_t loaded = part.tensors - part.missing;
    if (!given || static_cast<double>(loaded) >= kLeastShare * static_cast<double>(part.tensors)) {
      continue;
    }
    TooLittle("only " + std::to_string(loaded) + " of the " + std::to_string(part.tensors) +
                  " tensors of the " + part.name + " are there",
              part.name == "RGB stream" ? train.init_rgb : train.init_pose, report);
  }
  lines.push_back(LineOn(config, network, files, report));
  return lines;
}

}  // namespace

std::vector<std::string> LoadInitialWeights(const Config& config, Network& network) {
  const TrainConfig& train = config.train;
  const bool merge = !train.init_rgb.empty() || !train.init_pose.empty();
  if (train.init.empty() && !merge) return {};
  if (!train.init.empty() && merge) {
    throw Error("train.init and train.init_rgb / train.init_pose exclude each other", train.init,
                "keep one of them");
  }
  NamedTensors targets;
  for (const NamedTensor& entry : network.StateDict()) {
    targets.emplace_back(entry.name, entry.tensor);
  }
  if (!merge) return LoadOne(config, targets, network);
  if (!config.model.has_rgb() || !config.model.has_pose()) {
    throw Error("train.init_rgb and train.init_pose are for two-stream networks; model.type is \"" +
                    config.model.type + "\"",
                train.init_rgb.empty() ? train.init_pose : train.init_rgb, "use train.init");
  }
  return LoadTwo(config, targets, network);
}

}  // namespace kinefit
