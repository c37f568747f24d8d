#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "dataset/annotations.h"
#include "model/network.h"

namespace kinefit {

// What a run does, in one table, before it does it: device, network, clips, batch and rate after
// scaling, precision, plan, where to. `sets`: what each is for ("training"), with its split.
// `trains`: with what concerns training alone.
std::string StartTable(const Config& config, const Network& network,
                       const std::vector<std::pair<std::string, const Dataset*>>& sets,
                       int64_t world, bool trains);

}  // namespace kinefit
