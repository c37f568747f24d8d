#include "config/hierarchy.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <set>

#include "config/nearest_key.h"
#include "config/option_value.h"
#include "config/toml_tree.h"
#include "files/error.h"

namespace kinefit {
namespace {

constexpr size_t kMostGroups = 1000;

std::string Quoted(const std::string& text) { return "\"" + text + "\""; }

std::vector<ClassHierarchy::Class> ReadClasses(const TomlNode& node) {
  CheckList(node, "classes", -1);
  std::vector<ClassHierarchy::Class> classes;
  for (const TomlNode& item : node.items) {
    ClassHierarchy::Class entry;
    if (item.kind == TomlNode::Kind::kText) {
      entry.name = item.text;
    } else if (item.kind == TomlNode::Kind::kInteger) {
      entry.number = item.integer;
    } else {
      throw Error("a class is a number or a name, not " + KindName(item.kind), item.where,
                  "write classes = [0, 1, \"wave\"]");
    }
    classes.push_back(std::move(entry));
  }
  return classes;
}

ClassHierarchy::Group ReadGroup(const TomlNode& node) {
  if (node.kind != TomlNode::Kind::kTable) {
    throw Error("a group must be a table, not " + KindName(node.kind), node.where,
                "write one [[groups]] section for each group");
  }
  ClassHierarchy::Group group;
  group.where = node.where;
  for (const auto& [key, value] : node.members) {
    if (key == "name") {
      ReadValue(value, key, Anything(), &group.name);
    } else if (key == "classes") {
      group.classes = ReadClasses(value);
      group.where = value.where;
    } else {
      throw Error("\"" + key + "\" is not part of a group", value.where,
                  "a group has a name and classes");
    }
  }
  if (group.name.empty()) throw Error("a group has no name", group.where, "write name = \"head\"");
  if (group.classes.empty()) {
    throw Error("group " + Quoted(group.name) + " has no classes", group.where,
                "list them, or remove the group");
  }
  return group;
}

ClassHierarchy ReadHierarchy(const TomlNode& root, const std::string& origin) {
  ClassHierarchy hierarchy;
  hierarchy.origin = origin;
  for (const auto& [key, node] : root.members) {
    if (key != "groups" || node.kind != TomlNode::Kind::kList) {
      throw Error("\"" + key + "\" is not part of a hierarchy", node.where,
                  "a hierarchy is [[groups]], each with a name and classes");
    }
    if (node.items.size() > kMostGroups) {
      throw Error("more than 1000 groups", node.where, "make fewer");
    }
    for (const TomlNode& item : node.items) hierarchy.groups.push_back(ReadGroup(item));
  }
  if (hierarchy.groups.empty()) {
    throw Error("there are no groups in this hierarchy", origin,
                "write one [[groups]] section for each group, with name and classes");
  }
  std::set<std::string> names;
  for (const ClassHierarchy::Group& group : hierarchy.groups) {
    if (names.insert(group.name).second) continue;
    throw Error("two groups are called " + Quoted(group.name), group.where,
                "give every group a name of its own");
  }
  return hierarchy;
}

const EmbeddedFile* FindBuiltIn(const std::string& name) {
  for (const EmbeddedFile& file : BuiltInHierarchies()) {
    if (file.name == name) return &file;
  }
  return nullptr;
}

int64_t NumberOf(const ClassHierarchy::Class& entry, const ClassHierarchy::Group& group,
                 const std::vector<std::string>& class_names) {
  if (entry.name.empty()) return entry.number;
  if (class_names.empty()) {
    throw Error("class " + Quoted(entry.name) + " of group " + Quoted(group.name) +
                    " has a name, but the classes' names are not known",
                group.where, "name their file in data.classes, or use numbers");
  }
  const auto found = std::find(class_names.begin(), class_names.end(), entry.name);
  if (found != class_names.end()) return found - class_names.begin();
  const std::vector<std::string> near = NearestKeys(entry.name, class_names);
  throw Error("group " + Quoted(group.name) + " names the unknown class " + Quoted(entry.name),
              group.where,
              near.empty() ? "use names of data.classes, or numbers"
                           : "did you mean " + Quoted(near.front()) + "?");
}

std::string Described(int64_t label, const std::vector<std::string>& class_names) {
  const auto number = static_cast<size_t>(label);
  std::string text = "class " + std::to_string(label);
  if (number < class_names.size()) text += " (" + class_names[number] + ")";
  return text;
}

// A hierarchy that is whole, but of so many classes; 0 if it is not.
int64_t CompleteCount(const std::vector<std::vector<int64_t>>& groups) {
  std::set<int64_t> all;
  size_t entries = 0;
  for (const auto& group : groups) {
    all.insert(group.begin(), group.end());
    entries += group.size();
  }
  const bool whole = entries == all.size() && !all.empty() && *all.begin() == 0 &&
                     *all.rbegin() == static_cast<int64_t>(all.size()) - 1;
  return whole ? static_cast<int64_t>(all.size()) : 0;
}

}  // namespace

bool ClassHierarchy::has_names() const {
  for (const Group& group : groups) {
    for (const Class& entry : group.classes) {
      if (!entry.name.empty()) return true;
    }
  }
  return false;
}

std::vector<std::string> BuiltInHierarchyNames() {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : BuiltInHierarchies()) names.emplace_back(file.name);
  return names;
}

bool IsBuiltInHierarchy(const std::string& name) { return FindBuiltIn(name) != nullptr; }

ClassHierarchy ParseHierarchy(const std::string& text, const std::string& origin) {
  return ReadHierarchy(ParseToml(text, origin), origin);
}

ClassHierarchy LoadHierarchy(const std::string& name_or_path) {
  const std::string& name = name_or_path;
  if (const EmbeddedFile* file = FindBuiltIn(name)) {
    return ParseHierarchy(std::string(file->text), name);
  }
  const std::string extension = ".toml";
  if (name.size() > extension.size() &&
      name.compare(name.size() - extension.size(), std::string::npos, extension) == 0) {
    return ReadHierarchy(ParseTomlFile(name), name);
  }
  std::string list;
  for (const std::string& known : BuiltInHierarchyNames()) {
    list += (list.empty() ? "" : ", ") + known;
  }
  throw Error("\"" + name + "\" is not a hierarchy", "",
              "use one of " + list + ", or a .toml file of your own (docs/formats/hierarchy.md)");
}

std::vector<std::vector<int64_t>> ResolveHierarchy(const ClassHierarchy& hierarchy,
                                                   const std::vector<std::string>& class_names,
                                                   int64_t num_classes) {
  std::vector<std::vector<int64_t>> groups;
  std::vector<std::string> names;
  for (const ClassHierarchy::Group& group : hierarchy.groups) {
    groups.emplace_back();
    names.push_back(group.name);
    for (const ClassHierarchy::Class& entry : group.classes) {
      groups.back().push_back(NumberOf(entry, group, class_names));
    }
    std::sort(groups.back().begin(), groups.back().end());
  }
  CheckGroups(groups, names, num_classes, "hierarchy " + hierarchy.origin, class_names);
  return groups;
}

void CheckGroups(const std::vector<std::vector<int64_t>>& groups,
                 const std::vector<std::string>& group_names, int64_t num_classes,
                 const std::string& where, const std::vector<std::string>& class_names) {
  if (!group_names.empty() && groups.size() != group_names.size()) {
    throw Error("there are " + std::to_string(group_names.size()) + " names for " +
                    std::to_string(groups.size()) + " groups",
                where, "give each group of model.groups a name in model.group_names, or none");
  }
  const int64_t complete = CompleteCount(groups);
  if (complete > 0 && complete != num_classes) {
    throw Error("the groups are of " + std::to_string(complete) +
                    " classes, but model.num_classes is " + std::to_string(num_classes),
                where, "choose another data.hierarchy (\"\" = none), or set model.num_classes");
  }
  const auto name = [&](size_t group) {
    return group_names.empty() ? std::to_string(group) : Quoted(group_names[group]);
  };
  std::vector<int64_t> group_of(static_cast<size_t>(num_classes), -1);
  for (size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].empty()) {
      throw Error("group " + name(g) + " has no class", where, "list its classes, or remove it");
    }
    for (const int64_t label : groups[g]) {
      if (label < 0 || label >= num_classes) {
        throw Error("group " + name(g) + " has class " + std::to_string(label) +
                        ", but there are " + std::to_string(num_classes) +
                        " classes, counted from 0",
                    where, "correct the number, or model.num_classes");
      }
      int64_t& group = group_of[static_cast<size_t>(label)];
      if (group >= 0) {
        throw Error(Described(label, class_names) + " is in two groups, " +
                        name(static_cast<size_t>(group)) + " and " + name(g),
                    where, "every class belongs to one group: remove it from one of them");
      }
      group = static_cast<int64_t>(g);
    }
  }
  const auto missing = std::find(group_of.begin(), group_of.end(), -1);
  if (missing != group_of.end()) {
    throw Error(Described(missing - group_of.begin(), class_names) + " is in no group", where,
                "every class belongs to one group: add it to one");
  }
}

std::vector<std::string> ReadClassFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    throw Error("class names cannot be read", path, "correct data.classes, or leave it out");
  }
  std::vector<std::string> names;
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  return names;
}

void ApplyHierarchy(bool read_files, LoadedConfig* loaded) {
  const DataConfig& data = loaded->config.data;
  ModelConfig& model = loaded->config.model;
  Provenance& provenance = loaded->provenance;
  if (data.hierarchy.empty() || !model.groups.empty()) return;
  if (!IsBuiltInHierarchy(data.hierarchy) && !read_files) return;
  const auto origin = provenance.find("data.hierarchy");
  const std::string where =
      (origin == provenance.end() ? "" : origin->second + ": ") + "data.hierarchy";
  try {
    const ClassHierarchy hierarchy = LoadHierarchy(data.hierarchy);
    std::vector<std::string> class_names;
    if (!data.classes.empty() && hierarchy.has_names()) class_names = ReadClassFile(data.classes);
    model.groups = ResolveHierarchy(hierarchy, class_names, model.num_classes);
    model.group_names.clear();
    for (const ClassHierarchy::Group& group : hierarchy.groups) model.group_names.push_back(group.name);
  } catch (const Error& error) {
    if (!error.where().empty()) throw;
    throw Error(error.problem(), where, error.remedy());
  }
  provenance["model.groups"] = provenance["model.group_names"] =
      "hierarchy \"" + data.hierarchy + "\"";
}

std::vector<int64_t> GroupOfClass(const ModelConfig& model) {
  if (model.groups.empty()) return {};
  std::vector<int64_t> group_of(static_cast<size_t>(model.num_classes), 0);
  for (size_t g = 0; g < model.groups.size(); ++g) {
    for (const int64_t label : model.groups[g]) {
      group_of.at(static_cast<size_t>(label)) = static_cast<int64_t>(g);
    }
  }
  return group_of;
}

}  // namespace kinefit
