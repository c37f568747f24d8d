#pragma once

#include <string>
#include <string_view>

#include "checkpoint/checkpoint.h"

namespace kinefit {

// The format of https://huggingface.co/docs/safetensors: the length of a JSON header, the header
// (name, type, shape and place of each tensor, and texts), the tensors' bytes without holes.

bool LooksLikeSafetensors(std::string_view bytes);

// {"state_dict": the tensors, and the header's texts under their own names}. Throws Error naming
// `path` for anything malformed.
CheckpointDict ParseSafetensors(std::string_view bytes, const std::string& path);

// Writes tensors and texts, atomically; the same contents make the same bytes. Throws Error.
void WriteSafetensors(const std::string& path, const NamedTensorList& tensors,
                      const std::vector<std::pair<std::string, std::string>>& texts);

}  // namespace kinefit
