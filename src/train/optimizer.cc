#include "train/optimizer.h"

#include "files/error.h"
#include "train/adamw.h"
#include "train/sgd.h"

namespace kinefit {

size_t Optimizer::IndexOf(const std::string& name, const std::string& where) const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].name == name) return i;
  }
  throw Error("the optimizer state names a parameter that the network does not have: " + name,
              where, "resume with the configuration of the run that wrote the checkpoint");
}

at::Tensor Optimizer::LoadSlot(const CheckpointValue& state, const std::string& slot, size_t index,
                               const std::string& where) const {
  const NamedTensor& parameter = parameters_[index];
  const CheckpointValue* value = state.Find(slot);
  if (value == nullptr) {
    throw Error("the optimizer state of " + parameter.name + " has no " + slot, where,
                "resume with the optimizer that wrote the checkpoint (train.optimizer.type)");
  }
  const at::Tensor& saved = value->AsTensor(where + ": optimizer." + parameter.name + "." + slot);
  if (saved.sizes() != parameter.tensor.sizes()) {
    throw Error("the optimizer state of " + parameter.name + " has another shape than the network",
                where, "resume with the configuration of the run that wrote the checkpoint");
  }
  at::Tensor loaded = at::empty_like(parameter.tensor, parameter.tensor.options());
  loaded.copy_(saved);
  return loaded;
}

std::unique_ptr<Optimizer> MakeOptimizer(const OptimizerConfig& config,
                                         const std::vector<NamedTensor>& parameters) {
  if (config.type == "sgd") return std::make_unique<Sgd>(config, parameters);
  if (config.type == "adamw") return std::make_unique<AdamW>(config, parameters);
  throw Error("unknown optimizer \"" + config.type + "\"", "train.optimizer.type",
              "use \"sgd\" or \"adamw\"");
}

}  // namespace kinefit
