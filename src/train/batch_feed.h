#pragma once

#include <cstdint>

#include "loader/loader.h"

namespace kinefit {

// How an epoch began: with step 0 at its first sample, unless it is continued with steps of another
// size.
struct EpochStart {
  int64_t skipped = 0;     // samples that were seen before
  int64_t first_step = 0;  // number of the step that comes first behind them
};

// Deals a loader's micro-batches out to optimizer steps: step k of an epoch gets those numbered
// [k * accumulate, (k + 1) * accumulate), the last step what is left. Goes by the batches' numbers,
// so a batch that fell out because all its clips were bad shifts nothing: iteration, epoch and
// position in the epoch stay functions of each other.
//
// An epoch that was begun with steps of another size goes on behind the samples seen then: its
// steps are numbered from `first_step` on (EpochStart).
class BatchFeed {
 public:
  BatchFeed(Loader& loader, int64_t accumulate) : loader_(loader), accumulate_(accumulate) {}

  int64_t steps_per_epoch() const;
  // Goes to the start of optimizer step `step` of `epoch`.
  void Start(int64_t epoch, int64_t step, EpochStart start = {});
  // The next micro-batch of step `step`; false when the step has had all of its batches. Steps
  // must not go back.
  bool Next(int64_t step, Batch* batch);
  // Where the loader has to start for step `step` of `epoch` to be next.
  LoaderPosition PositionOf(int64_t epoch, int64_t step, EpochStart start = {}) const;

 private:
  Loader& loader_;
  int64_t accumulate_;
  int64_t first_step_ = 0;   // of the epoch under way
  int64_t next_number_ = 0;  // of the batch that comes next, at the earliest
  bool ended_ = false;
  bool holding_ = false;  // `held_` has been taken from the loader but belongs to a later step
  Batch held_;
};

}  // namespace kinefit
