#pragma once

#include <string>
#include <vector>

#include "model/merge.h"

namespace kinefit {

// Which two-stream network with more than laterals these weights are of: "pcan",
// "rgbpose_attention" (which was called pcan before the published PCAN came), or "" for others.
std::string KindOfWeights(const NamedTensors& weights);

// Throws Error if they are of one of these and the network to be filled is of another `type`.
void RequireKind(const NamedTensors& weights, const std::string& type, const std::string& where);

// Those of `missing` that no checkpoint of the published code has, taken out.
std::vector<std::string> WithoutOptional(const std::vector<std::string>& missing);

}  // namespace kinefit
