#pragma once

#include <string>
#include <vector>

#include "config/config.h"

namespace kinefit {

// The pieces of LoadDataset that other readers of annotations share.

// The lines of `config.data.classes`, or "0", "1", ... Throws Error unless there are num_classes.
std::vector<std::string> ReadClassNames(const Config& config);

// Throws Error, naming `where`, if clips with so many joints are not what the network and
// config.data expect.
void CheckJoints(const Config& config, int64_t joints, const std::string& where);

}  // namespace kinefit
