#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/load.h"
#include "files/embedded.h"

namespace kinefit {

// Which classes make which group (the coarse classes). Format of the files:
// docs/formats/hierarchy.md.
struct ClassHierarchy {
  std::vector<std::string> names;            // of the groups
  std::vector<std::vector<int64_t>> groups;  // their classes
};

// The hierarchies of configs/hierarchies/, which are part of the program.
const std::vector<EmbeddedFile>& BuiltInHierarchies();
std::vector<std::string> BuiltInHierarchyNames();
bool IsBuiltInHierarchy(const std::string& name);

// A hierarchy of `classes` classes. Where it names classes, `class_names` says their numbers.
// Throws Error with file:line unless every class is in exactly one group.
ClassHierarchy ParseHierarchy(const std::string& text, const std::string& origin, int64_t classes,
                              const std::vector<std::string>& class_names);

// The same of a built-in one by its name, or a file: whatever ends in ".toml". The file of class
// names (data.classes; "" = none) is read only if the hierarchy names any.
ClassHierarchy LoadHierarchy(const std::string& name_or_path, int64_t classes,
                             const std::string& class_file);

// Takes what data.hierarchy says into model.groups and model.group_names, unless there are groups.
// Without `read_files` only built-in ones are looked at, as by ApplyJointLayout. Throws Error.
void ApplyHierarchy(bool read_files, LoadedConfig* loaded);

}  // namespace kinefit
