#include "train/settings_diff.h"

#include <map>
#include <sstream>

#include "config/options.h"

namespace kinefit {
namespace {

// Keys, or sections when they end in a dot, that leave weights and scores as they are.
constexpr const char* kHarmless[] = {
    "train.work_dir",
    "train.resume",
    "train.init",
    "train.init_rgb",
    "train.init_pose",
    "train.init_strict",
    "train.log_every",
    "train.keep_last",
    "train.checkpoint_every",
    "train.nan_guard",
    "data.workers",
    "train.max_skipped_steps",
    "data.prefetch",
    "eval.",
    "data.max_bad_share",
    "memory.",
    "threads",
    "data.test_split",
    "data.test_annotations",
    "data.hierarchy",  // what it says is in model.groups
    "distributed.timeout",
    "distributed.bucket_mib",
};

bool Harmless(const std::string& key) {
  for (const std::string pattern : kHarmless) {
    const bool section = pattern.back() == '.';
    if (section ? key.compare(0, pattern.size(), pattern) == 0 : key == pattern) return true;
  }
  return false;
}

// As TOML text; "(none)" for keys of lists of tables, and such as are none.
std::string DefaultOf(const std::string& key) {
  for (const OptionInfo& option : ListOptions()) {
    if (option.key == key) return option.initial;
  }
  return "(none)";
}

std::string Trim(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// "a.b.c" -> value text. Only the plain layout that DumpConfig writes: headers, and one key a line.
std::map<std::string, std::string> Flatten(const std::string& toml) {
  std::map<std::string, std::string> values;
  std::map<std::string, int> entries;  // of lists of tables
  std::string section;
  std::istringstream lines(toml);
  for (std::string line; std::getline(lines, line);) {
    line = Trim(line);
    if (line.empty() || line[0] == '#') continue;
    if (line.compare(0, 2, "[[") == 0) {
      const std::string name = line.substr(2, line.find("]]") - 2);
      section = name + "." + std::to_string(entries[name]++) + ".";
    } else if (line[0] == '[') {
      section = line.substr(1, line.find(']') - 1) + ".";
    } else {
      const size_t equals = line.find('=');
      if (equals == std::string::npos) continue;
      values[section + Trim(line.substr(0, equals))] = Trim(line.substr(equals + 1));
    }
  }
  return values;
}

}  // namespace

std::vector<std::string> SettingsThatDiffer(const std::string& before, const std::string& now) {
  std::map<std::string, std::string> old_values = Flatten(before);
  std::map<std::string, std::string> new_values = Flatten(now);
  std::map<std::string, std::string> keys = old_values;
  keys.insert(new_values.begin(), new_values.end());
  std::vector<std::string> lines;
  for (const auto& [key, unused] : keys) {
    const auto old_value = old_values.find(key);
    const auto new_value = new_values.find(key);
    // What an older version did not write down was what is the default now.
    const std::string old_text = old_value == old_values.end() ? DefaultOf(key) : old_value->second;
    const std::string new_text = new_value == new_values.end() ? "(none)" : new_value->second;
    if (old_text == new_text || Harmless(key)) continue;
    lines.push_back(key + ": " + old_text + " -> " + new_text);
  }
  return lines;
}

}  // namespace kinefit
