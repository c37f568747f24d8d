#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "train/trainer.h"

namespace kinefit {

// The checkpoints of one run in its work dir: `epoch_N.pth` after N epochs, `iter_N.pth` after N
// steps within an epoch, `best.pth`, and `last.pth`, a link to the newest numbered one.
class RunFolder {
 public:
  explicit RunFolder(std::string work_dir) : work_dir_(std::move(work_dir)) {}

  struct Found {
    std::string path;
    CheckpointDict root;
  };
  // What train.resume = `resume` means here, nothing for a fresh start. Creates the folder.
  //   "auto"   the newest checkpoint that can be read; unreadable ones are reported and passed over
  //   "never"  a fresh start; throws Error if the folder holds checkpoints, which would be lost
  //   a path   that checkpoint; throws Error if the folder holds checkpoints of another run
  // Throws Error if there are checkpoints but none can be read.
  std::optional<Found> CheckpointToResume(const std::string& resume, TrainObserver& observer);

  // Where the checkpoint after `iteration` steps goes.
  std::string PathOf(int64_t iteration, int64_t steps_per_epoch) const;
  std::string BestPath() const { return work_dir_ + "/best.pth"; }
  bool HasBest() const;
  // Lets `last.pth` name `newest`, a numbered checkpoint. It changes in one step, so that it always
  // names a whole file. A file system without links simply has no `last.pth`.
  void PointLastTo(const std::string& newest) const;
  // Removes all but the newest `keep` numbered checkpoints; 0 keeps all. `newest` always stays.
  void Prune(int64_t keep, const std::string& newest) const;

 private:
  // epoch_N.pth and iter_N.pth, the last written first.
  std::vector<std::string> Numbered() const;

  std::string work_dir_;
};

}  // namespace kinefit
