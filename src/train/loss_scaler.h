#pragma once

#include <cstdint>
#include <string>

#include "checkpoint/checkpoint.h"

namespace kinefit {

// Dynamic loss scaling for fp16 (torch.cuda.amp.GradScaler's defaults): the loss is multiplied by
// scale() before backward, so that small gradients survive in 16 bits; a step whose gradients
// overflowed is dropped and halves the scale; 2000 good steps in a row double it.
class LossScaler {
 public:
  double scale() const { return scale_; }
  // `overflow`: the gradients of this step were not finite, the update has been dropped.
  void Update(bool overflow);
  // Overflow at this scale is no longer a matter of scaling: the numbers themselves are broken.
  bool exhausted() const { return scale_ < 1; }

  // {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}: torch's
  // GradScaler.state_dict().
  CheckpointDict State() const;
  void Load(const CheckpointValue& state, const std::string& where);

 private:
  double scale_ = 65536;
  int64_t good_steps_ = 0;
};

}  // namespace kinefit
