#pragma once

#include <ATen/ATen.h>

#include <memory>

#include "config/config.h"
#include "model/network.h"

namespace kinefit {

// PCAN: Prototypical Calibrating Ambiguous Samples for Micro-Action Recognition (AAAI 2025, arXiv
// 2412.14719), with the names of the published checkpoints; docs/pcan.md explains it. `config` has
// been validated.
std::unique_ptr<Network> MakePcan(const ModelConfig& config, const at::TensorOptions& options);

}  // namespace kinefit
