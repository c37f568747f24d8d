#include "config/load.h"

#include <algorithm>
#include <filesystem>

#include "config/hierarchy.h"
#include "config/joint_layout.h"
#include "config/option_value.h"
#include "config/toml_tree.h"
#include "files/error.h"

namespace kinefit {
namespace {

constexpr size_t kMaxDepth = 16;
constexpr size_t kMaxFiles = 256;  // one file may be included along many paths

const char kInclude[] = "include";

TomlNode TakeInclude(TomlNode* root) {
  const auto is_include = [](const auto& member) { return member.first == kInclude; };
  const auto found = std::find_if(root->members.begin(), root->members.end(), is_include);
  TomlNode include;
  include.kind = TomlNode::Kind::kList;
  if (found == root->members.end()) return include;
  include = std::move(found->second);
  root->members.erase(found);
  return include;
}

void ForgetJoints(LoadedConfig* loaded) {
  DataConfig& data = loaded->config.data;
  data.left_joints.clear();
  data.right_joints.clear();
  data.limbs.clear();
  for (const char* lost :
       {"data.left_joints", "data.right_joints", "data.limbs", "model.pose.in_channels"}) {
    loaded->provenance.erase(lost);
  }
}

void ForgetGroups(LoadedConfig* loaded) {
  loaded->config.model.groups.clear();
  loaded->config.model.group_names.clear();
  loaded->provenance.erase("model.groups");
  loaded->provenance.erase("model.group_names");
}

// Stores one layer of a configuration. One that names the joints or the hierarchy makes those of
// earlier layers void, so that a set's own file can follow a configuration made for another set.
void ApplyLayer(const TomlNode& root, LoadedConfig* loaded) {
  for (const auto& [section, node] : root.members) {
    if (section != "data") continue;
    for (const auto& [key, value] : node.members) {
      if (value.text.empty()) continue;
      if (key == "joints") ForgetJoints(loaded);
      if (key == "hierarchy") ForgetGroups(loaded);
    }
  }
  ApplyToml(root, &loaded->config, &loaded->provenance);
}

// Values that follow from what data.joints and data.hierarchy name.
void ApplyNamed(bool read_joints, bool read_hierarchy, LoadedConfig* loaded) {
  ApplyJointLayout(read_joints, loaded);
  ApplyHierarchy(read_hierarchy, loaded);
}

class FileReader {
 public:
  explicit FileReader(LoadedConfig* loaded) : loaded_(loaded) {}

  // `from`: "file:line" of the include, "" for the first file.
  void Read(const std::string& path, const std::string& from) {
    CheckCircle(path, from);
    TomlNode root = ParseTomlFile(path);
    open_.push_back(Identity(path));
    const TomlNode include = TakeInclude(&root);
    for (const std::string& name : IncludedNames(include)) {
      const std::filesystem::path base = std::filesystem::path(path).parent_path();
      const std::string included = (base / name).lexically_normal().string();
      std::error_code status;
      if (!std::filesystem::exists(included, status)) {
        throw Error("the included file " + included + " does not exist", include.where,
                    "included paths count from the folder of the including file");
      }
      Read(included, include.where);
    }
    ApplyLayer(root, loaded_);
    open_.pop_back();
  }

 private:
  static std::string Identity(const std::string& path) {
    std::error_code status;
    const std::filesystem::path real = std::filesystem::weakly_canonical(path, status);
    return status ? path : real.string();
  }

  static std::vector<std::string> IncludedNames(const TomlNode& include) {
    std::vector<std::string> names(1);
    if (include.kind == TomlNode::Kind::kText) {
      ReadValue(include, kInclude, Anything(), &names[0]);
    } else {
      ReadValue(include, kInclude, Anything(), &names);
    }
    return names;
  }

  void CheckCircle(const std::string& path, const std::string& from) {
    if (std::find(open_.begin(), open_.end(), Identity(path)) != open_.end()) {
      throw Error("including " + path + " goes in a circle: it is being read already", from,
                  "remove this include or the one that leads back");
    }
    if (open_.size() >= kMaxDepth || ++files_ > kMaxFiles) {
      throw Error("too many included files at " + path, from,
                  "at most 16 levels and 256 files; flatten the includes");
    }
  }

  LoadedConfig* loaded_;
  std::vector<std::string> open_;  // canonical names of the files being read, outermost first
  size_t files_ = 0;
};

std::string Trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// A word that needs no quotes in an override: no TOML punctuation in it.
bool IsBareWord(const std::string& text) {
  return !text.empty() && text.find_first_of("\"'[]{}=,#\n\r") == std::string::npos;
}

TomlNode ParseOverrideValue(const std::string& key, const std::string& value) {
  const bool quoted = !value.empty() && (value[0] == '"' || value[0] == '\'');
  std::string text = value;
  if (IsTextOption(key) && !quoted) {
    text = QuoteToml(value);
  } else if (value.empty()) {
    throw Error("there is no value for " + key, "--set", "write --set " + key + "=VALUE");
  }
  TomlNode root;
  try {
    root = ParseToml("value = " + text, "--set");
  } catch (const Error&) {
    if (!IsBareWord(value)) throw;
    root = ParseToml("value = " + QuoteToml(value), "--set");
  }
  if (root.members.size() != 1) {
    throw Error("more than one value for " + key, "--set", "write one --set for each key");
  }
  return std::move(root.members[0].second);
}

// Values of an override have no line.
void SetWhere(TomlNode* node, const std::string& where) {
  node->where = where;
  for (TomlNode& item : node->items) SetWhere(&item, where);
  for (auto& member : node->members) SetWhere(&member.second, where);
}

TomlNode ParseOverride(const std::string& text) {
  const size_t equals = text.find('=');
  const std::string key = Trimmed(text.substr(0, equals));
  const bool name = !key.empty() && key.find_first_not_of(
                                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "abcdefghijklmnopqrstuvwxyz"
                                        "0123456789_-.") == std::string::npos;
  if (equals == std::string::npos || !name || key.size() > 200) {
    throw Error("an override is not of the form key=value", "--set",
                "for example --set train.optimizer.lr=0.01");
  }
  TomlNode node = ParseOverrideValue(key, Trimmed(text.substr(equals + 1)));
  for (size_t end = key.size(); end != std::string::npos;) {
    const size_t dot = end == 0 ? std::string::npos : key.rfind('.', end - 1);
    const size_t start = dot == std::string::npos ? 0 : dot + 1;
    TomlNode table;
    table.members.emplace_back(key.substr(start, end - start), std::move(node));
    node = std::move(table);
    end = dot;
  }
  SetWhere(&node, "--set");
  return node;
}

void ApplyOverrides(const std::vector<std::string>& overrides, LoadedConfig* loaded) {
  for (const std::string& text : overrides) {
    try {
      ApplyLayer(ParseOverride(text), loaded);
    } catch (const Error& error) {
      throw Error(error.problem(), "--set " + text, error.remedy());
    }
  }
}

}  // namespace

LoadedConfig LoadConfig(const std::string& path, const std::vector<std::string>& overrides) {
  LoadedConfig loaded;
  FileReader(&loaded).Read(path, "");
  ApplyOverrides(overrides, &loaded);
  ApplyNamed(true, true, &loaded);
  return loaded;
}

LoadedConfig LoadConfigText(const std::string& text, const std::string& origin,
                            const std::vector<std::string>& overrides) {
  LoadedConfig loaded;
  TomlNode root = ParseToml(text, origin);
  const TomlNode include = TakeInclude(&root);
  if (!include.where.empty()) {
    throw Error("this configuration cannot include files", include.where,
                "only configuration files can; write the keys themselves");
  }
  ApplyLayer(root, &loaded);
  ApplyOverrides(overrides, &loaded);
  // Text written out whole has all values; only an override can bring a file that is not in it.
  const auto overridden = [&](const char* key) {
    const auto origin = loaded.provenance.find(key);
    return origin != loaded.provenance.end() && origin->second == "--set";
  };
  ApplyNamed(overridden("data.joints"), overridden("data.hierarchy"), &loaded);
  return loaded;
}

}  // namespace kinefit
