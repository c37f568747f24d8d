#pragma once

#include <string>
#include <vector>

// Internal to src/checkpoint: what other programs put around a network's names and weights.
namespace kinefit {

// `name` without what wrappers add: "module." (data-parallel), "_orig_mod." (torch.compile) and
// FSDP's anywhere, "model.", "net." and "network." (Lightning) in front. `removed` becomes what was
// taken off, "" if nothing.
std::string UnwrappedName(const std::string& name, std::string* removed);

// Whether a tensor of this name can be part of a network: its name ends like a layer's.
bool EndsLikeAWeight(const std::string& name);

// Whether a member of a checkpoint can hold the weights: averages and optimizers look alike.
bool MayHoldWeights(const std::string& key);

}  // namespace kinefit
