#pragma once

#include "config/config.h"

namespace kinefit {

// Throws Error, naming the key, for a configuration from which no network can be made.
void ValidateModel(const ModelConfig& config);

}  // namespace kinefit
