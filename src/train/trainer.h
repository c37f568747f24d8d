#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "distributed/group.h"
#include "loader/loader.h"
#include "model/network.h"

namespace kinefit {

// What one validation returns: the fused top-1 picks the best checkpoint.
struct ValidationResult {
  double fused_top1 = 0;                                // in [0, 1]
  std::vector<std::pair<std::string, double>> metrics;  // for the log, e.g. {"top1/pose", 0.71}
};

// One optimizer step, as reported to observers.
struct StepReport {
  int64_t epoch = 0;          // 0-based
  int64_t step_in_epoch = 0;  // optimizer steps
  int64_t steps_per_epoch = 0;
  int64_t iteration = 0;  // optimizer steps since the start of training
  int64_t total_iterations = 0;
  double loss = 0;                                     // mean over the samples of the step
  std::vector<std::pair<std::string, double>> losses;  // per stream
  double top1 = 0;  // training top-1 of the fused score in this step, in [0, 1]
  double lr = 0;
  double grad_norm = 0;
  int64_t samples = 0;
  double seconds = 0;        // wall time of the step, waiting included
  double wait_seconds = 0;   // of which waiting for data
  int64_t memory_bytes = 0;  // peak resident (CPU) or allocated (CUDA)
  int64_t tensor_bytes = 0;  // most bytes of tensors at once since the start, what plans predict;
                             // 0: not counted
  bool skipped = false;      // NaN guard skipped the update
};

// Receives what happens. Calls come from the training thread. Default implementations do nothing.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  virtual void OnMessage(const std::string& /*text*/) {}  // one plain line: lr scaling, resume, ...
  virtual void OnStep(const StepReport& /*report*/) {}
  virtual void OnValidation(int64_t /*epoch*/, const ValidationResult& /*result*/, bool /*best*/) {}
  virtual void OnBadClips(int64_t /*epoch*/, const std::vector<BadClip>& /*clips*/,
                          int64_t /*samples*/) {}
  virtual void OnCheckpoint(const std::string& /*path*/) {}
};

// Scores a network. The configuration is the run's as it is at that time.
using Validator = std::function<ValidationResult(Network&, const Config&)>;

enum class TrainEnd { kFinished, kEarlyStop, kInterrupted };

struct TrainResult {
  TrainEnd end = TrainEnd::kFinished;
  int64_t iterations = 0;
  double best_top1 = -1;        // -1: never validated
  int64_t best_epoch = 0;       // whose network the best checkpoint is, from 1
  std::string best_checkpoint;  // "" if none
  std::string last_checkpoint;
};

// The one training loop. `network` has been initialised (InitialiseNetwork); train.init* and a
// resume are loaded over that. Runs config.train on `train_set`, validating with `validate` (may be
// empty; it gets the configuration as the run has it now) every val_every epochs with the EMA
// weights if there are any, writing checkpoints into config.train.work_dir and resuming as
// config.train.resume says. `effective_config` (TOML text) is stored in checkpoints. When
// `*interrupted` turns true (a signal), the step is finished, a checkpoint saved, and kInterrupted
// returned; a validation that was under way is discarded (it may end early with any exception) and
// done again on resume. A finished run returns its result at once, its weights in `network`. A work
// dir with checkpoints is refused unless they are resumed. Where memory runs out, the step or
// validation under way is undone and run again, then with a plan that needs less if memory.plan is
// "auto" (train/recovery.h). Throws Error on bad input and on a NaN loss under nan_guard = "stop"
// (the batch's sample names are saved first), and c10::OutOfMemoryError if no plan is left, with a
// checkpoint saved.
//
// With a `group` of several ranks every rank calls it with the same arguments (`observer` and
// `interrupted` are its own): they train one batch together and return the same. Rank 0 alone reads
// and writes files; what it starts from, the others get from it. A signal to any rank ends all of
// them with one checkpoint; `validate` must score the set together and give all ranks the same, or
// throw StopAsked on all. null: this process alone.
TrainResult Train(Network& network, const Config& config, const Dataset& train_set,
                  const Validator& validate, const std::string& effective_config,
                  TrainObserver& observer, const std::atomic<bool>* interrupted,
                  Group* group = nullptr);

}  // namespace kinefit
