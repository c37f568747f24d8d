#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "model/network.h"

namespace kinefit {

// Loads train.init, or train.init_rgb and train.init_pose (single-stream checkpoints merged into a
// two-stream network), into `network`; averaged weights are preferred where a file has them.
// Returns lines on what was loaded; what differs is listed whole in a file of the work dir. Throws
// Error for files in which less than half of the network (or of a stream) is found, for NaN in
// weights (unless train.init_nonfinite), and when train.init is given together with the others.
std::vector<std::string> LoadInitialWeights(const Config& config, Network& network);

}  // namespace kinefit
