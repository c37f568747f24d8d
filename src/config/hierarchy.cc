#include "config/hierarchy.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <functional>
#include <map>
#include <set>

#include "config/nearest_key.h"
#include "config/option_value.h"
#include "config/toml_tree.h"
#include "files/error.h"

namespace kinefit {
namespace {

constexpr int64_t kMostClasses = 100000;

using NamesOf = std::function<std::vector<std::string>()>;

// Reads one hierarchy; says what is wrong with file and line.
class HierarchyReader {
 public:
  // `class_names` is asked once, when the first class is named.
  HierarchyReader(std::string origin, int64_t classes, NamesOf class_names)
      : origin_(std::move(origin)), classes_(classes), class_names_(std::move(class_names)) {}

  ClassHierarchy Read(const TomlNode& root) {
    for (const auto& [key, node] : root.members) {
      if (key != "group") {
        throw Error("\"" + key + "\" is not part of a hierarchy", node.where,
                    "write one [[group]] with name and classes for each group");
      }
      if (node.kind != TomlNode::Kind::kList) NotAGroup(node);
      for (const TomlNode& group : node.items) ReadGroup(group);
    }
    if (hierarchy_.groups.empty()) {
      throw Error("there are no groups in this hierarchy", origin_,
                  "write one [[group]] with name and classes for each group");
    }
    CheckAllThere();
    return std::move(hierarchy_);
  }

 private:
  [[noreturn]] static void NotAGroup(const TomlNode& node) {
    throw Error("a group must be a table with name and classes", node.where,
                "write [[group]] in double brackets for each group");
  }

  void ReadGroup(const TomlNode& node) {
    if (node.kind != TomlNode::Kind::kTable) NotAGroup(node);
    std::string name;
    const TomlNode* classes = nullptr;
    for (const auto& [key, member] : node.members) {
      if (key == "name") {
        ReadValue(member, "name", Anything(), &name);
      } else if (key == "classes") {
        classes = &member;
      } else {
        throw Error("\"" + key + "\" is not part of a group", member.where,
                    "a group has a name and classes");
      }
    }
    const std::string where = classes == nullptr ? node.where : classes->where;
    if (name.empty() || !names_.insert(name).second) {
      throw Error(name.empty() ? "a group has no name" : "two groups are called \"" + name + "\"",
                  where, "give every group a name of its own");
    }
    hierarchy_.names.push_back(name);
    hierarchy_.groups.emplace_back();
    if (classes != nullptr) CheckList(*classes, "classes", -1);
    if (classes == nullptr || classes->items.empty()) {
      throw Error("group \"" + name + "\" has no classes", where,
                  "list them: classes = [0, 1, \"wave\"]");
    }
    for (const TomlNode& entry : classes->items) {
      const int64_t label = ReadClass(entry);
      const auto [found, fresh] = group_of_.emplace(label, name);
      if (!fresh) {
        throw Error("class " + Describe(label) + " is in two groups, \"" + found->second +
                        "\" and \"" + name + "\"",
                    entry.where, "every class belongs to exactly one group");
      }
      hierarchy_.groups.back().push_back(label);
    }
  }

  int64_t ReadClass(const TomlNode& entry) {
    if (entry.kind == TomlNode::Kind::kText) return NumberOf(entry);
    int64_t label = 0;
    ReadValue(entry, "a class", Between(0, static_cast<double>(kMostClasses)), &label);
    return label;
  }

  int64_t NumberOf(const TomlNode& entry) {
    std::string name;
    ReadValue(entry, "a class", Anything(), &name);
    if (known_.empty()) known_ = class_names_();
    if (known_.empty()) {
      throw Error("the hierarchy names class \"" + name + "\", but the classes have no names",
                  entry.where, "set data.classes to the file of their names, or write numbers");
    }
    const auto found = std::find(known_.begin(), known_.end(), name);
    if (found == known_.end()) {
      const std::vector<std::string> near = NearestKeys(name, known_);
      throw Error("there is no class called \"" + name + "\"", entry.where,
                  near.empty() ? "use the names in the file that data.classes names"
                               : "did you mean \"" + near.front() + "\"?");
    }
    return found - known_.begin();
  }

  std::string Describe(int64_t label) const {
    std::string text = std::to_string(label);
    if (label < static_cast<int64_t>(known_.size())) {
      text += " (\"" + known_[static_cast<size_t>(label)] + "\")";
    }
    return text;
  }

  void CheckAllThere() const {
    const int64_t last = group_of_.rbegin()->first;
    // One that counts from 0 without a hole is whole, but made for another set of classes. Where
    // classes are named, it is for this set, and the last ones have been left out.
    const bool whole = static_cast<int64_t>(group_of_.size()) == last + 1;
    const bool for_this_set = !known_.empty() && last < classes_;
    if (last + 1 != classes_ && (last >= classes_ || (whole && !for_this_set))) {
      throw Error("the hierarchy is one of " + std::to_string(last + 1) +
                      " classes, but model.num_classes is " + std::to_string(classes_),
                  origin_, "name the hierarchy of this set of classes, or make one");
    }
    for (int64_t label = 0; label < classes_; ++label) {
      if (group_of_.count(label) > 0) continue;
      throw Error("class " + Describe(label) + " is in no group", origin_,
                  "every class belongs to exactly one group");
    }
  }

  const std::string origin_;
  const int64_t classes_;
  const NamesOf class_names_;
  std::vector<std::string> known_;  // the classes' names, once one was looked for
  ClassHierarchy hierarchy_;
  std::set<std::string> names_;
  std::map<int64_t, std::string> group_of_;
};

std::vector<std::string> ReadLines(const std::string& path) {
  std::vector<std::string> names;
  if (path.empty()) return names;
  std::ifstream file(path);
  if (!file) throw Error("class names cannot be read", path, "correct data.classes");
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  return names;
}

const EmbeddedFile* FindBuiltIn(const std::string& name) {
  for (const EmbeddedFile& file : BuiltInHierarchies()) {
    if (file.name == name) return &file;
  }
  return nullptr;
}

}  // namespace

std::vector<std::string> BuiltInHierarchyNames() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : BuiltInHierarchies()) names.emplace_back(file.name);
  return names;
}

bool IsBuiltInHierarchy(const std::string& name) { return FindBuiltIn(name) != nullptr; }

ClassHierarchy ParseHierarchy(const std::string& text, const std::string& origin, int64_t classes,
                              const std::vector<std::string>& class_names) {
  return HierarchyReader(origin, classes, [&] { return class_names; })
      .Read(ParseToml(text, origin));
}

ClassHierarchy LoadHierarchy(const std::string& name_or_path, int64_t classes,
                             const std::string& class_file) {
  const std::string& name = name_or_path;
  const std::string extension = ".toml";
  TomlNode root;
  if (const EmbeddedFile* file = FindBuiltIn(name)) {
    root = ParseToml(std::string(file->text), name);
  } else if (name.size() > extension.size() &&
             name.compare(name.size() - extension.size(), std::string::npos, extension) == 0) {
    root = ParseTomlFile(name);
  } else {
    std::string list;
    for (const std::string& known : BuiltInHierarchyNames()) {
      list += (list.empty() ? "" : ", ") + known;
    }
    throw Error("\"" + name + "\" is not a hierarchy of classes", "",
                "use one of " + list + ", or a .toml file of your own (docs/formats/hierarchy.md)");
  }
  return HierarchyReader(name, classes, [&] { return ReadLines(class_file); }).Read(root);
}

void ApplyHierarchy(bool read_files, LoadedConfig* loaded) {
  const DataConfig& data = loaded->config.data;
  ModelConfig& model = loaded->config.model;
  if (data.hierarchy.empty() || !model.groups.empty()) return;
  if (!IsBuiltInHierarchy(data.hierarchy) && !read_files) return;
  ClassHierarchy hierarchy;
  try {
    hierarchy = LoadHierarchy(data.hierarchy, model.num_classes, data.classes);
  } catch (const Error& error) {
    // One that is not read from a file has no lines: who asked for it is the place.
    if (!error.where().empty() && !IsBuiltInHierarchy(data.hierarchy)) throw;
    const auto origin = loaded->provenance.find("data.hierarchy");
    const std::string asked = origin == loaded->provenance.end() ? "" : origin->second + ": ";
    throw Error(error.problem(), asked + "data.hierarchy = \"" + data.hierarchy + "\"",
                error.remedy());
  }
  model.groups = std::move(hierarchy.groups);
  model.group_names = std::move(hierarchy.names);
  loaded->provenance["model.groups"] = loaded->provenance["model.group_names"] =
      "hierarchy \"" + data.hierarchy + "\"";
}

}  // namespace kinefit
