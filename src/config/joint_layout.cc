#include "config/joint_layout.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "config/nearest_key.h"
#include "config/option_value.h"
#include "config/toml_tree.h"
#include "files/error.h"

namespace kinefit {
namespace {

constexpr size_t kMostJoints = 1024;

using Numbers = std::unordered_map<std::string, int64_t>;

Numbers ReadJoints(const TomlNode& node, JointLayout* layout) {
  ReadValue(node, "joints", Anything(), &layout->joints);
  if (layout->joints.empty() || layout->joints.size() > kMostJoints) {
    throw Error("a layout has 1 to 1024 joints, this one " + std::to_string(layout->count()),
                node.where, "list the names of the joints in the order of the arrays");
  }
  Numbers numbers;
  for (const std::string& name : layout->joints) {
    const auto number = static_cast<int64_t>(numbers.size());
    if (name.empty() || !numbers.emplace(name, number).second) {
      throw Error(name.empty() ? "a joint has no name" : "joint \"" + name + "\" is listed twice",
                  node.where, "give every joint a name of its own");
    }
  }
  return numbers;
}

// [["a", "b"], ...] as numbers of joints.
std::vector<std::vector<int64_t>> ReadPairs(const TomlNode& node, const std::string& key,
                                            const Numbers& numbers) {
  std::vector<std::vector<std::string>> names;
  ReadValue(node, key, Anything(), &names);
  std::vector<std::vector<int64_t>> pairs;
  for (const std::vector<std::string>& pair : names) {
    if (pair.size() != 2 || pair[0] == pair[1]) {
      throw Error("an entry of " + key + " does not name two joints", node.where,
                  "write [\"left_wrist\", \"right_wrist\"]");
    }
    pairs.emplace_back();
    for (const std::string& name : pair) {
      const auto found = numbers.find(name);
      if (found == numbers.end()) {
        std::vector<std::string> known;
        for (const auto& entry : numbers) known.push_back(entry.first);
        std::sort(known.begin(), known.end());
        const std::vector<std::string> near = NearestKeys(name, known);
        std::string problem = "\"" + name;
        problem.append("\" in ").append(key).append(" is not one of the joints");
        throw Error(
            problem, node.where,
            near.empty() ? "use names of `joints`" : "did you mean \"" + near.front() + "\"?");
      }
      pairs.back().push_back(found->second);
    }
  }
  return pairs;
}

const TomlNode* FindMember(const TomlNode& root, const std::string& key) {
  for (const auto& member : root.members) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

JointLayout ReadLayout(const TomlNode& root, const std::string& origin) {
  for (const auto& [key, node] : root.members) {
    if (key == "joints" || key == "pairs" || key == "limbs") continue;
    throw Error("\"" + key + "\" is not part of a joint layout", node.where,
                "a layout has joints, pairs and limbs");
  }
  const TomlNode* joints = FindMember(root, "joints");
  if (joints == nullptr) {
    throw Error("there are no joints in this layout", origin,
                "list their names: joints = [\"head\", ...]");
  }
  JointLayout layout;
  layout.name = origin;
  const Numbers numbers = ReadJoints(*joints, &layout);
  if (const TomlNode* pairs = FindMember(root, "pairs")) {
    std::set<int64_t> seen;
    for (const std::vector<int64_t>& pair : ReadPairs(*pairs, "pairs", numbers)) {
      for (const int64_t joint : pair) {
        if (seen.insert(joint).second) continue;
        throw Error("joint \"" + layout.joints[static_cast<size_t>(joint)] + "\" is in two pairs",
                    pairs->where, "every joint belongs to at most one pair");
      }
      layout.left.push_back(pair[0]);
      layout.right.push_back(pair[1]);
    }
  }
  if (const TomlNode* limbs = FindMember(root, "limbs")) {
    layout.limbs = ReadPairs(*limbs, "limbs", numbers);
  }
  return layout;
}

const EmbeddedFile* FindBuiltIn(const std::string& name) {
  for (const EmbeddedFile& file : BuiltInLayouts()) {
    if (file.name == name) return &file;
  }
  return nullptr;
}

}  // namespace

std::vector<std::string> BuiltInLayoutNames() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : BuiltInLayouts()) names.emplace_back(file.name);
  return names;
}

bool IsBuiltInLayout(const std::string& name) { return FindBuiltIn(name) != nullptr; }

JointLayout ParseJointLayout(const std::string& text, const std::string& origin) {
  return ReadLayout(ParseToml(text, origin), origin);
}

JointLayout LoadJointLayout(const std::string& name_or_path) {
  const std::string& name = name_or_path;
  if (const EmbeddedFile* file = FindBuiltIn(name)) {
    return ParseJointLayout(std::string(file->text), name);
  }
  const std::string extension = ".toml";
  if (name.size() > extension.size() &&
      name.compare(name.size() - extension.size(), std::string::npos, extension) == 0) {
    return ReadLayout(ParseTomlFile(name), name);
  }
  std::string list;
  for (const std::string& known : BuiltInLayoutNames()) list += (list.empty() ? "" : ", ") + known;
  throw Error("\"" + name + "\" is not a joint layout", "",
              "use one of " + list + ", or a .toml file of your own (docs/formats/joints.md)");
}

void ApplyJointLayout(bool read_files, LoadedConfig* loaded) {
  DataConfig& data = loaded->config.data;
  ModelConfig& model = loaded->config.model;
  Provenance& provenance = loaded->provenance;
  if (data.joints.empty()) return;
  const auto origin = provenance.find("data.joints");
  const std::string where =
      (origin == provenance.end() ? "" : origin->second + ": ") + "data.joints";
  if (!IsBuiltInLayout(data.joints) && !read_files) return;
  JointLayout layout;
  try {
    layout = LoadJointLayout(data.joints);
  } catch (const Error& error) {
    if (!error.where().empty()) throw;
    throw Error(error.problem(), where, error.remedy());
  }
  const std::string source = "joints \"" + data.joints + "\"";
  if (data.left_joints.empty() && data.right_joints.empty() && !layout.left.empty()) {
    data.left_joints = layout.left;
    data.right_joints = layout.right;
    provenance["data.left_joints"] = provenance["data.right_joints"] = source;
  }
  if (data.limbs.empty() && !layout.limbs.empty()) {
    data.limbs = layout.limbs;
    provenance["data.limbs"] = source;
  }
  const int64_t channels = (data.heatmap.with_joints ? layout.count() : 0) +
                           (data.heatmap.with_limbs ? static_cast<int64_t>(data.limbs.size()) : 0);
  if (provenance.count("model.pose.in_channels") == 0) {
    model.pose.in_channels = channels;
    provenance["model.pose.in_channels"] = source;
  } else if (model.has_pose() && model.pose.in_channels != channels) {
    throw Error("the joints \"" + data.joints + "\" make " + std::to_string(channels) +
                    " heatmap channels, but model.pose.in_channels is " +
                    std::to_string(model.pose.in_channels),
                where,
                "leave model.pose.in_channels out (then it follows), or name the joints that the "
                "network was made for");
  }
}

}  // namespace kinefit
