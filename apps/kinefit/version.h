#pragma once

#include <string>

namespace kinefit {

// "kinefit 0.1.0, LibTorch 1.13.1"; of a build with CUDA also CUDA's and NCCL's versions and how
// many GPUs there are.
std::string VersionText();

}  // namespace kinefit
