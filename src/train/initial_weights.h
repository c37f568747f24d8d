#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "model/network.h"

namespace kinefit {

// Loads train.init, or train.init_rgb and train.init_pose (single-stream checkpoints merged into a
// two-stream network), into `network`; averaged weights are preferred where a file has them.
// Returns one line per file on what was loaded. Throws Error for files that do not fit, and when
// train.init is given together with the others.
std::vector<std::string> LoadInitialWeights(const Config& config, Network& network);

}  // namespace kinefit
