#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "memory/plan.h"
#include "model/network.h"
#include "train/ema.h"
#include "train/loss_scaler.h"
#include "train/optimizer.h"

namespace kinefit {

// What one real training step took.
struct MeasuredStep {
  int64_t peak = 0;    // most bytes of tensors alive at once, as Rehearsal::peak
  double seconds = 0;  // by the clock
};

// A network that takes real training steps (TrainStep) on random input of the configuration's
// shapes, on the CPU: what a rehearsal is compared with. InstallCpuAllocator() must have been
// called before, and no other tensors may come or go meanwhile.
class MeasuredNetwork {
 public:
  // Makes network, optimizer and averaged weights, and takes a first step of one clip, with which
  // the optimizer's state is there. Throws Error where the configuration makes no network.
  explicit MeasuredNetwork(const Config& config);

  // One step of `config`, which may differ in what it does with the network: batch, accumulation,
  // recomputation, precision, clip size. Throws c10::OutOfMemoryError as TrainStep does; another
  // step may be taken then.
  MeasuredStep Step(const Config& config);

 private:
  int64_t before_;  // bytes that are not ours
  Config config_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Optimizer> optimizer_;
  std::optional<Ema> ema_;
  LossScaler scaler_;
};

// A plan beside what it took here.
struct CalibratedPlan {
  std::string name;  // "as written", "chosen"
  Plan plan;
  std::string not_run;  // why nothing was measured; empty: it was
  MeasuredStep measured;
  // (predicted - measured) / measured peak.
  double error() const {
    return static_cast<double>(plan.peak - measured.peak) / static_cast<double>(measured.peak);
  }
};

// Runs the configuration as written and, if it is another, the chosen plan: one step to warm up and
// `steps` (at least one) that count, in turns; the largest peak and the median time. What needs
// more than `memory` bytes is not run. Throws Error where the device is not the CPU.
std::vector<CalibratedPlan> Calibrate(const Config& config, const PlanReport& report,
                                      int64_t memory, int steps);

}  // namespace kinefit
