#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/config.h"

namespace kinefit {

// How long training is, in optimizer steps.
struct TrainLength {
  int64_t steps_per_epoch = 1;
  int64_t epochs = 1;  // the last one may be cut short by `iterations`
  int64_t total_iterations = 1;
};

// The learning rate as a function of the iteration alone: the rules of [[train.schedule]], chained
// as mmengine chains its param_schedulers. Each rule changes the current rate by mmengine's
// recursive formula at every event (epoch or iteration) of its range [begin, end); this class
// replays them from the start, so that nothing but the iteration has to be remembered by a resume.
class LearningRate {
 public:
  // Throws Error naming the entry for a rule that cannot be: empty range, start_factor 0, ...
  LearningRate(const std::vector<ScheduleConfig>& rules, double base_lr, const TrainLength& length);

  // The rate of the step that follows `iteration` finished steps. Rising iterations cost O(1).
  double At(int64_t iteration);

  // What mmengine saves of its schedulers, for readers of the checkpoint: a list of
  // {type, by_epoch, begin, end, last_step, _global_step, _last_value}. Not needed to resume.
  CheckpointList State(int64_t iteration);

 private:
  struct Rule {
    ScheduleConfig config;  // in its own unit: epochs, or iterations if per_iteration
    bool by_epoch = true;
    int64_t last_step = -1;  // mmengine's names: events within the range, all events
    int64_t global_step = -1;
  };
  void Restart();
  void StepRule(Rule& rule);
  double Next(const Rule& rule) const;

  double base_lr_;
  TrainLength length_;
  std::vector<Rule> rules_;
  int64_t iteration_ = 0;
  double value_ = 0;
};

}  // namespace kinefit
