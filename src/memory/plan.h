#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "config/config.h"
#include "memory/rehearsal.h"

namespace kinefit {

// One way of running the optimizer steps of a configuration.
struct Plan {
  int64_t batch_size = 0;       // clips per micro-batch
  int64_t accumulate = 1;       // micro-batches per step
  std::string recompute;        // as memory.recompute, e.g. "light rgb.layer1=block"
  std::string precision;        // as train.precision
  int64_t eval_batch_size = 0;  // as eval.batch_size; less where validation would not fit
  int64_t peak = 0;             // bytes allocated at once
  int64_t need = 0;             // bytes the device must have: on a GPU also cache and context
  double time = 1;  // of a step, relative to the plain composition as written; an estimate
  std::vector<std::string> changes;  // what it changes in the mathematics; empty: nothing
  bool fits = false;
};

struct PlanRequest {
  int64_t budget = 0;    // bytes
  double margin = 0;     // share of the budget to leave free
  bool exact = false;    // choose only plans that change nothing in the mathematics
  bool details = false;  // also the alternatives that only `kinefit plan` shows
};

// What a configuration needs, and how it can be trained within a budget.
struct PlanReport {
  std::string device;
  PlanRequest request;
  int64_t budget = 0;  // bytes, the margin taken off
  Plan as_written;
  Rehearsal rehearsal;        // of the configuration as written
  int64_t largest_batch = 0;  // largest micro-batch that fits as written otherwise; 0 = none
  int64_t largest_tried = 0;  // nothing was tried beyond: the true largest may be more
  std::vector<Plan> plans;    // that train the same thing, fastest first; as_written among them
  // The fastest of them that fits, -1: none does. Of two whose estimates are within 3 % the one
  // that changes nothing.
  int chosen = -1;
  Rehearsal chosen_rehearsal;  // if one does
  double lr = 0;               // as configured
  int64_t effective_batch = 0;
  int64_t rehearsals = 0;
  double seconds = 0;  // how long the planning took

  bool fits() const { return as_written.fits; }
};

// Rehearses one step of a configuration as it stands.
using Rehearse = std::function<Rehearsal(const Config&)>;

// Plans `config` within a budget: rehearses it as written and, where that does not fit or details
// are wanted, with what is recomputed and with micro-batches that divide its effective batch.
// Takes seconds at most; allocates nothing of the step's size.
PlanReport MakePlan(const Config& config, const PlanRequest& request, const Rehearse& rehearse);

// Puts a plan into the configuration.
void Apply(const Plan& plan, Config* config);

// Plans to go on with, in this order, when memory runs out under `current` all the same: each needs
// less than the one before, the last as little as can be.
std::vector<Plan> Fallbacks(const PlanReport& report, const Plan& current);

// The bytes a run may use: memory.budget if it is set (an Error if the machine has not so much),
// else what is free in the CPU's machine or container, less a reserve for the program itself, or
// what is free on the GPU. 0: there is no such GPU here.
int64_t DefaultBudget(const Config& config);

// What this machine, or the tightest control group on the way from this process to the root, has,
// and what of it is not held by others; bytes.
struct MemoryLimits {
  int64_t total = 0;
  int64_t free = 0;
};
MemoryLimits MachineLimits();
// From what /proc/self/cgroup holds (`cgroups`), the groups' files below `root` (versions 1 and 2),
// the machine's memory, what of it is available, and what this process holds itself.
MemoryLimits ReadMemoryLimits(const std::string& cgroups, const std::string& root, int64_t machine,
                              int64_t available, int64_t own);
int64_t MachineMemory();  // MachineLimits().total

}  // namespace kinefit
