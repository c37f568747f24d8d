#pragma once

#include <string>
#include <vector>

#include "train/optimizer.h"

namespace kinefit {

// Stochastic gradient descent with momentum, Nesterov momentum and L2 weight decay; the arithmetic
// of torch.optim.SGD (dampening 0), operation by operation:
//   g = grad + weight_decay * p;  b = momentum * b + g (first time b = g);
//   p -= lr * (nesterov ? g + momentum * b : b)
class Sgd : public Optimizer {
 public:
  // Throws Error for Nesterov without momentum.
  Sgd(const OptimizerConfig& config, const std::vector<NamedTensor>& parameters);
  void Prepare() override;
  void Step(double lr) override;
  CheckpointDict State() const override;
  void Load(const CheckpointDict& state, const std::string& where) override;
  CheckpointDict Hyperparameters() const override;

 private:
  void UpdateMomentum(const std::vector<size_t>& active, const std::vector<at::Tensor>& gradients);

  std::vector<at::Tensor> momentum_;  // per parameter; undefined before its first update
  std::vector<at::Tensor> fresh_;     // per parameter: memory for it until then
};

}  // namespace kinefit
