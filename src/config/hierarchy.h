#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/load.h"
#include "files/embedded.h"

namespace kinefit {

// Fine classes in coarse groups. Format of the files: docs/formats/hierarchy.md.
struct ClassHierarchy {
  // A class as the file has it: a name, or where that is empty a number.
  struct Class {
    std::string name;
    int64_t number = 0;
  };
  struct Group {
    std::string name;
    std::vector<Class> classes;
    std::string where;  // "file:line"
  };
  std::string origin;  // "ma52", or the file's path
  std::vector<Group> groups;

  bool has_names() const;  // of classes
};

// The hierarchies of configs/hierarchies/, which are part of the program.
const std::vector<EmbeddedFile>& BuiltInHierarchies();
std::vector<std::string> BuiltInHierarchyNames();
bool IsBuiltInHierarchy(const std::string& name);

// Throws Error with file:line for anything but groups with names of their own and classes.
ClassHierarchy ParseHierarchy(const std::string& text, const std::string& origin);

// A built-in hierarchy by its name, or a file: whatever ends in ".toml". Throws Error.
ClassHierarchy LoadHierarchy(const std::string& name_or_path);

// The numbers of each group's classes, in ascending order. `class_names` (may be empty) are what
// names refer to. Throws Error for an unknown name, and as CheckGroups does.
std::vector<std::vector<int64_t>> ResolveHierarchy(const ClassHierarchy& hierarchy,
                                                   const std::vector<std::string>& class_names,
                                                   int64_t num_classes);

// Throws Error naming `where` unless every class is in exactly one group. `group_names` are one per
// group or none, `class_names` (may be shorter) for its message.
void CheckGroups(const std::vector<std::vector<int64_t>>& groups,
                 const std::vector<std::string>& group_names, int64_t num_classes,
                 const std::string& where, const std::vector<std::string>& class_names = {});

// The non-empty lines of a file of class names. Throws Error.
std::vector<std::string> ReadClassFile(const std::string& path);

// Takes what data.hierarchy says into model.groups and model.group_names, unless they are set.
// `read_files` as for ApplyJointLayout. LoadConfig and LoadConfigText call it. Throws Error.
void ApplyHierarchy(bool read_files, LoadedConfig* loaded);

// [num_classes]: the group of each class; empty without groups.
std::vector<int64_t> GroupOfClass(const ModelConfig& model);

}  // namespace kinefit
