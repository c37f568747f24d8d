#pragma once

#include <string>
#include <vector>

#include "config/option_table.h"

namespace kinefit {

[[noreturn]] void ThrowUnknownKey(const TomlNode& node, const std::string& full_key,
                                  const std::string& base, const std::vector<std::string>& keys,
                                  const std::vector<std::string>& sections);
[[noreturn]] void ThrowNotASection(const TomlNode& node, const std::string& full_key,
                                   const std::string& example);

// Stores `table` into `root`. `section` is the part of `options` that the table stands for
// ("" = all of them), `base` what precedes their keys in Config ("train.schedule.0").
template <typename Root>
void ApplyTable(const std::vector<OptionOf<Root>>& options, const TomlNode& table,
                const std::string& section, const std::string& base, Root* root,
                Provenance* provenance) {
  for (const auto& [name, node] : table.members) {
    const std::string key = JoinKey(section, name);
    const std::string full_key = JoinKey(base, key);
    const OptionOf<Root>* match = nullptr;
    const OptionOf<Root>* inside = nullptr;  // an option of the section called `key`
    for (const OptionOf<Root>& option : options) {
      if (option.info.key == key) match = &option;
      if (option.info.key.compare(0, key.size() + 1, key + ".") == 0) inside = &option;
    }
    if (match) {
      match->read(*root, node, full_key, *provenance);
    } else if (inside && node.kind == TomlNode::Kind::kTable) {
      ApplyTable(options, node, key, base, root, provenance);
    } else if (inside) {
      ThrowNotASection(node, full_key, JoinKey(base, inside->info.key));
    } else {
      std::vector<std::string> keys, sections;
      for (const OptionOf<Root>& option : options) {
        keys.push_back(option.info.key);
        for (std::string s = option.section; !s.empty(); s = SectionOf(s)) sections.push_back(s);
        if (option.entries) sections.push_back(option.info.key);
      }
      ThrowUnknownKey(node, full_key, base, keys, sections);
    }
  }
}

}  // namespace kinefit
