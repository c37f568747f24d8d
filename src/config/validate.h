#pragma once

#include "config/config.h"
#include "config/options.h"

namespace kinefit {

// Checks values against each other where each alone is in range: lists that must have one entry
// per stage, clip lengths and image sizes that must bring both streams to the same shape at their
// laterals, joints against heatmap channels, schedules, ... Throws Error naming the keys, where
// they were set if `provenance` is given, and the remedy. Touches no files.
void Validate(const Config& config, const Provenance* provenance = nullptr);

// Also checks what only training needs: data to train on, joint pairs for mirroring, where the
// first weights come from.
void ValidateTraining(const Config& config, const Provenance* provenance = nullptr);

}  // namespace kinefit
