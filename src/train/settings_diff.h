#pragma once

#include <string>
#include <vector>

namespace kinefit {

// Compares two configurations as DumpConfig writes them and returns one line per key that differs
// ("train.batch_size: 16 -> 8"), without those that cannot change the course of training
// (work_dir, resume, workers, evaluation, ...).
std::vector<std::string> SettingsThatDiffer(const std::string& before, const std::string& now);

}  // namespace kinefit
