#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/network.h"

namespace kinefit {

// Exponential moving average of the parameters, as mmengine's ExponentialMovingAverage does it: the
// first update copies, each later one is averaged = (1 - momentum) averaged + momentum source.
// Buffers (BN statistics) are not averaged: those of the network itself are used. The network must
// outlive it.
class Ema {
 public:
  Ema(Network& network, double momentum);

  void Update();
  // Exchanges the averaged and the network's parameters; call again to undo. Needs no memory.
  void Swap();

  // {"steps": updates so far, "state_dict": {name: tensor}}; shares storage.
  CheckpointDict State() const;
  // Throws Error naming `where` if it does not fit the network.
  void Load(const CheckpointValue& state, const std::string& where);

 private:
  Network& network_;
  double momentum_;
  int64_t steps_ = 0;
  std::vector<at::Tensor> averaged_;  // as network_.parameters()
};

// Puts the averaged weights into the network for its lifetime. `ema` may be null: does nothing.
class EmaWeightsInUse {
 public:
  explicit EmaWeightsInUse(Ema* ema) : ema_(ema) {
    if (ema_ != nullptr) ema_->Swap();
  }
  ~EmaWeightsInUse() {
    if (ema_ != nullptr) ema_->Swap();
  }
  EmaWeightsInUse(const EmaWeightsInUse&) = delete;
  EmaWeightsInUse& operator=(const EmaWeightsInUse&) = delete;

 private:
  Ema* ema_;
};

}  // namespace kinefit
