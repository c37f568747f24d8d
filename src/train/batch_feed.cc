#include "train/batch_feed.h"

#include <utility>

namespace kinefit {

int64_t BatchFeed::steps_per_epoch() const {
  return (loader_.batches_per_epoch() + accumulate_ - 1) / accumulate_;
}

LoaderPosition BatchFeed::PositionOf(int64_t epoch, int64_t step, EpochStart start) const {
  return {epoch, (step - start.first_step) * accumulate_, start.skipped};
}

void BatchFeed::Start(int64_t epoch, int64_t step, EpochStart start) {
  const LoaderPosition position = PositionOf(epoch, step, start);
  first_step_ = start.first_step;
  loader_.Start(position);
  next_number_ = position.next_batch;
  ended_ = false;
  holding_ = false;
  held_ = Batch();
}

bool BatchFeed::Next(int64_t step, Batch* batch) {
  const int64_t end = (step - first_step_ + 1) * accumulate_;
  if (next_number_ >= end || ended_) return false;
  if (!holding_) {
    if (!loader_.Next(&held_)) {
      ended_ = true;
      return false;
    }
    holding_ = true;
    next_number_ = loader_.position().next_batch - 1;
    if (next_number_ >= end) return false;
  }
  *batch = std::move(held_);
  held_ = Batch();
  holding_ = false;
  ++next_number_;
  return true;
}

}  // namespace kinefit
