#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/optimizer.h"

namespace kinefit {

// Adam with decoupled weight decay (Loshchilov & Hutter 2019); the arithmetic of torch.optim.AdamW
// without amsgrad:
//   p *= 1 - lr * weight_decay;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
//   p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerConfig& config, const std::vector<NamedTensor>& parameters);
  void Prepare() override;
  void Step(double lr) override;
  CheckpointDict State() const override;
  void Load(const CheckpointDict& state, const std::string& where) override;
  CheckpointDict Hyperparameters() const override;

 private:
  struct Moments {
    int64_t step = 0;   // updates so far (t)
    at::Tensor first;   // m; may be undefined before the first update
    at::Tensor second;  // v
  };
  std::vector<Moments> moments_;  // per parameter
};

}  // namespace kinefit
