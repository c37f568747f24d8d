#pragma once

#include <string>

#include "config/config.h"
#include "dataset/annotations.h"

namespace kinefit {

// LoadDataset of a packed store.
Dataset LoadPackedDataset(const Config& config, const std::string& split);

}  // namespace kinefit
