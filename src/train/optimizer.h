#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/config.h"
#include "model/network.h"

namespace kinefit {

// Changes parameters by their gradients, in place. Holds the parameters by reference (tensors share
// storage with the network); its state is saved per parameter name.
class Optimizer {
 public:
  Optimizer(const OptimizerConfig& config, const std::vector<NamedTensor>& parameters)
      : config_(config), parameters_(parameters) {}
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // Makes the state that Step() will need for the parameters that have a gradient, so that Step()
  // asks for no memory but a few bytes for numbers and cannot fail half-way. Changes nothing else;
  // may be called again after it failed.
  virtual void Prepare() = 0;
  // One update with learning rate `lr`; prepares what is not prepared. Parameters without a
  // gradient stay as they are. The gradients are used as scratch space: their values are undefined
  // afterwards.
  virtual void Step(double lr) = 0;

  // {parameter name: {"momentum_buffer": tensor, ...}} of the parameters updated so far. The
  // tensors share storage with the optimizer.
  virtual CheckpointDict State() const = 0;
  // Takes over what State() gave. Throws Error naming `where` for unknown parameters or shapes that
  // differ.
  virtual void Load(const CheckpointDict& state, const std::string& where) = 0;

  // What torch.optim keeps in a param_group besides lr and params.
  virtual CheckpointDict Hyperparameters() const = 0;

  const std::string& type() const { return config_.type; }
  const std::vector<NamedTensor>& parameters() const { return parameters_; }

 protected:
  // Index of the parameter called `name`; throws Error naming `where` if there is none.
  size_t IndexOf(const std::string& name, const std::string& where) const;
  // The tensor `slot` of `state`, on the device and with the shape of parameter `index`, copied.
  at::Tensor LoadSlot(const CheckpointValue& state, const std::string& slot, size_t index,
                      const std::string& where) const;

  OptimizerConfig config_;
  std::vector<NamedTensor> parameters_;
};

// "sgd" or "adamw" as config.type says. Throws Error for another type.
std::unique_ptr<Optimizer> MakeOptimizer(const OptimizerConfig& config,
                                         const std::vector<NamedTensor>& parameters);

}  // namespace kinefit
