#pragma once

#include <string>
#include <string_view>

#include "checkpoint/checkpoint.h"

// Internal to src/checkpoint: the format of torch.save before PyTorch 1.6, five pickles (a magic
// number, a version, the machine, the values, the keys of the storages) and then each storage's
// number of elements and bytes.
namespace kinefit {

// Whether a file that begins with `start` (16 bytes or more) is one.
bool LooksLegacy(std::string_view start);

// Executes nothing; objects of unknown types become None. Throws Error naming the file.
CheckpointDict ReadLegacy(const std::string& path);

}  // namespace kinefit
