#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "config/options.h"
#include "config/toml_tree.h"

namespace kinefit {

// One line of the option table: a key bound to a member of `Root` (Config, or the struct of one
// entry of a list of tables). Private to this folder; others see options.h.
template <typename Root>
struct OptionOf {
  OptionInfo info;      // info.key counts from Root on
  std::string section;  // of info.key: "train.optimizer"
  // Checks a value and stores it; `full_key` is the key from Config on. Throws Error.
  std::function<void(Root&, const TomlNode&, const std::string& full_key, Provenance&)> read;
  // The value as TOML text.
  std::function<std::string(const Root&)> write;

  // Lists of tables only: {key, TOML text} of every entry's options, and those options.
  using Lines = std::vector<std::pair<std::string, std::string>>;
  std::function<std::vector<Lines>(const Root&)> entries;
  std::vector<OptionInfo> entry_options;
};

const std::vector<OptionOf<Config>>& ConfigOptions();
const std::vector<OptionOf<ScheduleConfig>>& ScheduleOptions();  // of one [[train.schedule]]

// Dotted keys: "a.b.c" is section "a.b" and last component "c".
std::string SectionOf(const std::string& key);
std::string LastComponent(const std::string& key);
std::string JoinKey(const std::string& section, const std::string& name);

}  // namespace kinefit
