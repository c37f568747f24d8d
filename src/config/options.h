#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/config.h"

namespace kinefit {

struct TomlNode;

// Where each key that is not a default got its value: "configs/rgbpose_attention_ntu60.toml:12" or
// "--set". Entries of lists of tables have numbered keys ("train.schedule.0.gamma").
using Provenance = std::map<std::string, std::string>;

// One key as documentation shows it.
struct OptionInfo {
  std::string key;      // "train.optimizer.lr"; in lists of tables "train.schedule[].gamma"
  std::string type;     // "integer", "list of string", ...
  std::string allowed;  // "0 to 1", "\"sgd\" or \"adamw\""; "" = anything
  std::string unit;     // "pixels", "epochs"; "" if it has none
  std::string initial;  // the default as TOML text
  std::string help;
};

// Every key, in the order of the sections. Everything in this header is driven by the one table in
// option_table.cc: adding an option takes a member in config.h and a line there.
std::vector<OptionInfo> ListOptions();

// One line per key: key, type and allowed values, default, help. For `kinefit config keys`.
std::string DescribeOptions();

// Stores a parsed TOML table (its root) into `config`, option by option, and notes in `provenance`
// where each value came from. Lists are replaced, not appended to. Throws Error naming file:line
// and key for an unknown key (with the nearest known one), a wrong type, a value out of range.
void ApplyToml(const TomlNode& root, Config* config, Provenance* provenance);

// True if `key` is an option that holds one string.
bool IsTextOption(const std::string& key);

// The whole effective configuration as TOML: reading it back gives an equal Config, writing that
// gives the same bytes. With `provenance` each line says in a comment where its value came from.
std::string DumpConfig(const Config& config, const Provenance* provenance = nullptr);

}  // namespace kinefit
