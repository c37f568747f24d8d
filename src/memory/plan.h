#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "memory/rehearsal.h"

namespace kinefit {

// Micro-batches of one optimizer step.
struct BatchPlan {
  int64_t batch_size = 0;  // clips per micro-batch
  int64_t accumulate = 1;  // micro-batches per step
  int64_t peak = 0;        // bytes
};

// What a configuration needs, and how it can be trained within a budget.
struct PlanReport {
  std::string device;
  std::string precision;
  int64_t budget = 0;  // bytes
  BatchPlan as_written;
  Rehearsal rehearsal;        // of the configuration as written
  int64_t largest_batch = 0;  // largest micro-batch that fits with accumulate as written; 0 = none
  // Nothing was tried beyond: the true largest batch may be more.
  int64_t largest_tried = 0;
  std::vector<std::pair<int64_t, int64_t>> peaks;  // (batch size, peak), ascending
  // The largest micro-batch that fits and keeps the effective batch; equal to as_written if that
  // fits. batch_size = 0: not even one clip fits.
  BatchPlan chosen;
  double seconds = 0;  // how long the planning took

  bool fits() const { return as_written.peak <= budget; }
};

// Rehearses `config` as written and, if it does not fit into `budget` bytes, the micro-batches that
// divide its effective batch. Takes seconds at most; allocates nothing of the step's size.
PlanReport MakePlan(const Config& config, int64_t budget);

// What `kinefit plan` prints: the breakdown by role, the ten largest layers, peaks per batch size,
// and what to do. Several lines, each ended by a newline.
std::string FormatPlan(const PlanReport& report);

// Makes `config` fit: if it does not as written, sets train.batch_size and train.accumulate so that
// the effective batch stays. Returns one paragraph that says what is needed and what was done.
// Throws Error if not even one clip fits.
std::string ApplyPlan(Config& config, int64_t budget);

// The bytes a run may use: memory.budget if it is set, else what the CPU's machine or container
// has, less a reserve for the program itself. 0 for a GPU without memory.budget: unknown here.
int64_t DefaultBudget(const Config& config);

// Physical memory, or the container's limit (cgroup v1 or v2) if that is less; bytes.
int64_t MachineMemory();

}  // namespace kinefit
