#include "config/options.h"

#include <algorithm>

#include "config/nearest_key.h"
#include "config/option_apply.h"
#include "config/option_table.h"
#include "files/error.h"

namespace kinefit {
namespace {

// Sections in the order of their first option, with the options of each.
using Section = std::pair<std::string, std::vector<const OptionOf<Config>*>>;
std::vector<Section> Sections() {
  std::vector<Section> sections;
  for (const OptionOf<Config>& option : ConfigOptions()) {
    const auto same = [&](const Section& s) { return s.first == option.section; };
    auto section = std::find_if(sections.begin(), sections.end(), same);
    if (section == sections.end()) section = sections.insert(section, {option.section, {}});
    section->second.push_back(&option);
  }
  return sections;
}

// A comment must stay in its line whatever a file is called.
std::string InOneLine(const std::string& text) {
  const std::string quoted = QuoteToml(text);
  return quoted.size() == text.size() + 2 ? text : quoted;
}

std::string Line(const std::string& name, const std::string& value, const std::string& full_key,
                 const Provenance* provenance) {
  std::string line = name + " = " + value;
  if (provenance) {
    constexpr size_t kCommentColumn = 44;
    line.resize(std::max(line.size(), kCommentColumn), ' ');
    const auto source = provenance->find(full_key);
    line += "  # " + (source == provenance->end() ? "default" : InOneLine(source->second));
  }
  return line + "\n";
}

std::string DumpEntries(const OptionOf<Config>& list, const Config& config,
                        const Provenance* provenance) {
  std::string text;
  size_t index = 0;
  for (const auto& entry : list.entries(config)) {
    const std::string base = JoinKey(list.info.key, std::to_string(index++));
    text += "\n[[" + list.info.key + "]]\n";
    for (const auto& [name, value] : entry) {
      text += Line(name, value, JoinKey(base, name), provenance);
    }
  }
  return text;
}

void Pad(std::string* text, size_t width) { text->resize(std::max(text->size() + 2, width), ' '); }

std::string DescribeOne(const OptionInfo& info) {
  std::string kind = info.type;
  if (!info.allowed.empty()) kind += " " + info.allowed;
  if (!info.unit.empty()) kind += " " + info.unit;
  std::string line = info.key;
  Pad(&line, 34);
  line += kind;
  Pad(&line, 74);
  line += info.initial;
  Pad(&line, 90);
  return line + info.help + "\n";
}

}  // namespace

void ThrowUnknownKey(const TomlNode& node, const std::string& full_key, const std::string& base,
                     const std::vector<std::string>& keys,
                     const std::vector<std::string>& sections) {
  const bool section = node.kind == TomlNode::Kind::kTable;
  const std::string key = base.empty() ? full_key : full_key.substr(base.size() + 1);
  std::string remedy;
  for (const std::string& near : NearestKeys(key, section ? sections : keys)) {
    remedy += (remedy.empty() ? "did you mean " : " or ") + JoinKey(base, near);
  }
  remedy += remedy.empty() ? "" : "? ";
  throw Error((section ? "unknown section " : "unknown key ") + InOneLine(full_key), node.where,
              remedy + "(`kinefit config keys` lists every key)");
}

void ThrowNotASection(const TomlNode& node, const std::string& full_key,
                      const std::string& example) {
  throw Error(full_key + " is a section, it cannot be " + KindName(node.kind) + " (" +
                  Abbreviate(node) + ")",
              node.where, "set one of its keys, for example " + example);
}

std::vector<OptionInfo> ListOptions() {
  std::vector<OptionInfo> all;
  for (const Section& section : Sections()) {
    for (const OptionOf<Config>* option : section.second) {
      all.push_back(option->info);
      for (OptionInfo entry : option->entry_options) {
        entry.key = option->info.key + "[]." + entry.key;
        all.push_back(std::move(entry));
      }
    }
  }
  return all;
}

std::string DescribeOptions() {
  std::string text;
  for (const OptionInfo& info : ListOptions()) text += DescribeOne(info);
  return text;
}

void ApplyToml(const TomlNode& root, Config* config, Provenance* provenance) {
  ApplyTable(ConfigOptions(), root, "", "", config, provenance);
}

bool IsTextOption(const std::string& key) {
  for (const OptionOf<Config>& option : ConfigOptions()) {
    if (option.info.key == key) return option.info.type == "string";
  }
  return false;
}

std::string DumpConfig(const Config& config, const Provenance* provenance) {
  std::string text;
  for (const auto& [section, options] : Sections()) {
    if (!section.empty()) text += "\n[" + section + "]\n";
    std::string entries;
    for (const OptionOf<Config>* option : options) {
      if (option->entries) entries += DumpEntries(*option, config, provenance);
      if (option->entries && !option->entries(config).empty()) continue;
      text += Line(LastComponent(option->info.key), option->write(config), option->info.key,
                   provenance);
    }
    text += entries;
  }
  return text;
}

}  // namespace kinefit
