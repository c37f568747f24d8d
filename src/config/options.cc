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

constexpr size_t kColumns = 100;

// `text` in lines of at most kColumns, each beginning with `indent`.
std::string Wrapped(const std::string& text, const std::string& indent) {
  std::string result;
  std::string line;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (!line.empty() && indent.size() + line.size() + 1 + word.size() > kColumns) {
      result += indent + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return line.empty() ? result : result + indent + line + "\n";
}

std::string DescribeOne(const OptionInfo& info) {
  std::string kind = info.path ? "path" : info.type;
  if (!info.allowed.empty()) kind += " " + info.allowed;
  if (!info.unit.empty()) kind += " " + info.unit;
  std::string initial = info.initial.empty() ? "(none)" : info.initial;
  return Wrapped(info.key + " = " + initial + "   # " + kind, "") + Wrapped(info.help, "    ");
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

std::string DescribeOptions(const std::string& prefix) {
  std::string text;
  std::vector<std::string> keys;
  for (const OptionInfo& info : ListOptions()) {
    keys.push_back(info.key);
    if (info.key.compare(0, prefix.size(), prefix) == 0) text += DescribeOne(info);
  }
  if (!text.empty()) return text;
  std::string remedy;
  for (const std::string& near : NearestKeys(prefix, keys)) {
    remedy += (remedy.empty() ? "did you mean " : " or ") + near;
  }
  throw Error("no option begins with " + InOneLine(prefix), "",
              remedy.empty() ? "`kinefit config keys` lists them all" : remedy + "?");
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
