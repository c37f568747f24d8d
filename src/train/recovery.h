#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "memory/plan.h"

namespace kinefit {

// Decides how a run goes on when memory runs out in the middle of it: first the same again, with
// the cache given back (another process may have taken the memory for a moment), then plan by plan
// with less, as far as memory.plan = "auto" allows, and when none is left not at all.
class Recovery {
 public:
  // `world`: ranks of the run.
  explicit Recovery(int64_t world = 1) : world_(world) {}

  // Whether the last step or validation ran out of memory, and what was then decided.
  struct Decision {
    bool go_on = false;
    bool new_plan = false;  // `*config` was changed: whatever was made from it is to be made anew
    std::string message;    // one line for the run's history, or why it cannot go on
  };

  // The optimizer step at `iteration` ran out of memory under `*config`; `what` says where and what
  // was asked for. Puts the next plan into `*config` if it is time for that.
  Decision AfterStep(int64_t iteration, const std::string& what, Config* config);

  // The same for a validation, which goes on with fewer samples at once.
  Decision AfterValidation(const std::string& what, Config* config);
  // A validation went well.
  void ValidationDone() { validation_failed_ = false; }

 private:
  void FindAlternatives(const Config& config);

  int64_t world_;
  bool planned_ = false;
  std::vector<Plan> alternatives_;  // not tried yet, in this order
  int64_t tried_ = 0;
  int64_t failed_iteration_ = -1;  // under the present plan
  bool validation_failed_ = false;
};

// "micro-batches of 4 x 5, recompute light".
std::string PlanText(const Plan& plan);

}  // namespace kinefit
