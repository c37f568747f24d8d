#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "config/options.h"

namespace kinefit {

struct LoadedConfig {
  Config config;
  Provenance provenance;
};

// Reads a TOML configuration. Defaults come first, then the files of its `include = "base.toml"`
// (or a list), then the file itself, then `overrides` in their order; later values win, and a list
// replaces the former list. Paths in a file count from its folder, those in overrides from the
// current one; both become absolute. Without a train.work_dir it is work_dirs/NAME, in the current
// folder, for a configuration NAME.toml. What follows from model.type where it is not given: the
// sizes of images, and heatmaps of a quarter of them beside RGB frames.
//
// An override is "key=value": the value as TOML; for text, quotes may be left out
// ("train.work_dir=work_dirs/a", "train.schedule.0.type=cosine").
//
// Throws Error naming file:line (or the override) and key for anything unknown, of the wrong type
// or out of range, and for includes that are missing or go in a circle. Does not check values
// against each other: config/validate.h does.
LoadedConfig LoadConfig(const std::string& path, const std::vector<std::string>& overrides = {});

// The same from text, such as a checkpoint's effective configuration; `origin` is what messages
// name. Such text cannot include files.
LoadedConfig LoadConfigText(const std::string& text, const std::string& origin,
                            const std::vector<std::string>& overrides = {});

// The effective configuration, each line with a comment saying where its value came from.
inline std::string DumpConfig(const LoadedConfig& loaded) {
  return DumpConfig(loaded.config, &loaded.provenance);
}

}  // namespace kinefit
