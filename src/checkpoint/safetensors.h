#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint.h"

// Internal to src/checkpoint, but for WriteSafetensors, which checkpoint.h declares: the format of
// huggingface/safetensors, a JSON header and the bytes of the tensors.
namespace kinefit {

// Whether a file of `file_size` bytes that begins with `start` (9 bytes or more) is one.
bool LooksLikeSafetensors(std::string_view start, uint64_t file_size);

// {"state_dict": tensors}, and beside it the texts of its __metadata__; "class_names", as kinefit
// writes them there, become a list again. Tensors of types that kinefit does not know are None.
// Throws Error naming the file for sizes and offsets that do not fit each other or the file.
CheckpointDict ReadSafetensors(const std::string& path);

}  // namespace kinefit
