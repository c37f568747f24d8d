#pragma once

#include <cstdint>
#include <string>

#include "config/config.h"
#include "distributed/group.h"
#include "train/step.h"

namespace kinefit {

// What to do about steps whose loss or gradients are NaN or infinite (config.train.nan_guard).
class NanGuard {
 public:
  explicit NanGuard(const TrainConfig& config) : config_(config) {}

  // Called after each step. A finite one resets `skipped_in_a_row`. For another one the sample
  // names are saved as `<work_dir>/nan_batch_iter_<iteration>.txt`; then, under "stop" or when more
  // than max_skipped_steps come in a row, throws Error naming that file. Otherwise counts the step
  // and returns true: it has been skipped.
  // With several ranks all call it; rank 0 saves the names of all.
  bool Check(const StepResult& result, int64_t iteration, int64_t* skipped_in_a_row,
             Group& group) const;

 private:
  const TrainConfig& config_;
};

// Throws Error, naming the first, if statistics of batch norms are NaN or infinite: the loss of the
// training is then as it was, but the network predicts nothing. `last`: the newest checkpoint
// written before, "" if none.
void RequireFiniteStatistics(const Network& network, const std::string& last);

}  // namespace kinefit
