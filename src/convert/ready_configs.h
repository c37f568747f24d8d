#pragma once

#include <string>
#include <vector>

namespace kinefit {

// What the configurations that a conversion writes beside a set depend on.
struct ReadySet {
  std::string made_by;  // for the comment on top
  std::string include;  // file name of the set's own file, in the same folder
  bool videos = true;   // else for pose networks alone
  bool large = false;   // NTU RGB+D: the reference's batches and rates; else a set of one's own
};

// Writes pose.toml and, where there are videos, rgb.toml and pcan.toml, which starts from the best
// networks of the other two, into `folder`. Files of these names that were not written by this
// function, or changed since, stay as they are. Returns the commands to run next. Throws Error.
std::vector<std::string> WriteReadyConfigs(const std::string& folder, const ReadySet& set);

}  // namespace kinefit
