#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "loader/loader.h"
#include "model/network.h"
#include "train/batch_feed.h"
#include "train/ema.h"
#include "train/loss_scaler.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace kinefit {

// The plan a run changed to when memory ran out; batch_size 0: it never did.
struct RecoveredPlan {
  int64_t batch_size = 0;
  int64_t accumulate = 1;
  std::string recompute;
  int64_t eval_batch_size = 0;
};

// What a run has to remember besides tensors. Everything random is a function of seed and
// iteration, the learning rate and the loader's position are functions of the iteration.
struct TrainState {
  int64_t iteration = 0;            // optimizer steps done
  bool validation_pending = false;  // the epoch that ended here has still to be validated
  double best_top1 = -1;            // -1: never validated
  int64_t best_iteration = 0;
  int64_t stale_validations = 0;   // since the best one
  int64_t skipped_in_a_row = 0;    // steps the NaN guard skipped
  std::vector<BadClip> bad_clips;  // of the epoch that is under way
  RecoveredPlan plan;
  EpochStart epoch_start;  // of the epoch that is under way
};

// What a run is, to recognise on resume whether it still is the same one.
struct RunIdentity {
  std::string effective_config;  // as given to Train(); for readers of the checkpoint
  std::string settings;          // DumpConfig of the configuration: to compare
  std::vector<std::string> class_names;
  int64_t seed = 0;
  int64_t batch_size = 0;  // of each rank
  int64_t accumulate = 1;
  int64_t world = 1;  // ranks
  int64_t samples_per_epoch = 0;
  int64_t steps_per_epoch = 1;
  int64_t threads = 1;  // results on the CPU may depend on their number

  int64_t samples_per_step() const { return batch_size * accumulate * world; }
};

// The parts of a run that have tensors or numbers to save. `ema` and `scaler` may be null.
struct TrainParts {
  Network* network = nullptr;
  Optimizer* optimizer = nullptr;
  LearningRate* learning_rate = nullptr;
  Ema* ema = nullptr;
  LossScaler* scaler = nullptr;
};

// A checkpoint of the run as it stands (docs/formats/checkpoint.md). Tensors share storage with the
// run. `weights_only` leaves out what only a resume needs (optimizer, position).
CheckpointDict MakeTrainCheckpoint(const TrainParts& parts, const TrainState& state,
                                   const RunIdentity& identity, bool weights_only);

// True if `root` holds what a resume needs.
// Throws Error, in one sentence, if the checkpoint's own configuration says that it is of another
// model.type than `config`. Says nothing about checkpoints without one.
void RefuseOtherNetwork(const CheckpointDict& root, const std::string& path, const Config& config);

bool IsResumable(const CheckpointDict& root);

// Puts a run back to where `root` (read from `path`) left it, and returns what it remembered.
// `changes` gets one line for each thing that is different now and will make the run go on
// differently. If steps now have another number of samples (micro-batch, accumulation, ranks), the
// position within the epoch is kept to the sample: each is still seen once. Throws Error for a
// checkpoint that cannot be resumed: weights only, another network, another optimizer.
TrainState RestoreTrainCheckpoint(const CheckpointDict& root, const std::string& path,
                                  const TrainParts& parts, const RunIdentity& identity,
                                  std::vector<std::string>* changes);

}  // namespace kinefit
