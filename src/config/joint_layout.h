#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/load.h"
#include "files/embedded.h"

namespace kinefit {

// What the joints of a skeleton are, in the order of the arrays. Format of the files:
// docs/formats/joints.md.
struct JointLayout {
  std::string name;                         // "ntu25", or the file's path
  std::vector<std::string> joints;          // V different names
  std::vector<int64_t> left;                // joints that swap with those of `right` in a mirror
  std::vector<int64_t> right;               // image, at the same places
  std::vector<std::vector<int64_t>> limbs;  // pairs of joints

  int64_t count() const { return static_cast<int64_t>(joints.size()); }
};

// The layouts of configs/joints/, which are part of the program.
const std::vector<EmbeddedFile>& BuiltInLayouts();
std::vector<std::string> BuiltInLayoutNames();

// Throws Error with file:line for anything but joints, pairs and limbs that fit together.
JointLayout ParseJointLayout(const std::string& text, const std::string& origin);

// A built-in layout by its name, or a file: whatever ends in ".toml". Throws Error.
JointLayout LoadJointLayout(const std::string& name_or_path);

// Whether `name` is a built-in layout, so that LoadJointLayout needs no file.
bool IsBuiltInLayout(const std::string& name);

// Takes what data.joints says into data.left_joints, right_joints and limbs, those that are empty,
// and into model.pose.in_channels unless it was set; one that was set must fit. Without
// `read_files` only built-in layouts are looked at: a configuration that was written out whole
// (a checkpoint's) has all values in it. LoadConfig and LoadConfigText call it. Throws Error.
void ApplyJointLayout(bool read_files, LoadedConfig* loaded);

}  // namespace kinefit
