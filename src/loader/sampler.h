#pragma once

#include <cstdint>
#include <vector>

#include "config/config.h"
#include "dataset/annotations.h"
#include "transform/pipeline.h"

namespace kinefit {

// One of `world` processes that go through the same epochs together.
struct Shard {
  int64_t rank = 0;  // 0 .. world - 1
  int64_t world = 1;
};

// The order in which an epoch shows a data set: a function of (config.seed, epoch) alone, the same
// in every process whatever its shard and batch size.
//
// Training, data.sampling = "shuffle": every sample config.data.repeat times, in random order.
// Training, "balanced": as many places as with "shuffle", shared out evenly to the classes that
// have samples (counts differ by at most one). A class goes through all of its samples in random
// order before one comes again; of a class with more samples than places, another random choice is
// shown each epoch. Test: every sample once, in the order of the set.
class Sampler {
 public:
  // The dataset must outlive the sampler.
  Sampler(const Dataset& dataset, const Config& config, Phase phase);

  int64_t samples() const { return samples_; }  // places of an epoch
  // [samples()] indices into dataset.samples.
  std::vector<int64_t> Order(int64_t epoch) const;

 private:
  std::vector<int64_t> BalancedOrder(int64_t epoch) const;

  const Dataset& dataset_;
  uint64_t seed_;
  bool shuffled_;
  bool balanced_;
  int64_t samples_;
};

// Consecutive places of an epoch's order.
struct Places {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// How an epoch's order is cut into micro-batches, and each of these among the processes.
// Micro-batch i of all processes together is what micro-batch i of a single process with batches of
// batch_size * world would be; each process has consecutive places of it. All processes have
// equally many micro-batches. The last one may be short: it is shared out as evenly as it goes, and
// a process may get nothing of it, but no place comes twice.
class MicroBatches {
 public:
  // The first `skipped` places of the epoch are left out: they were seen before the run was resumed
  // with batches of another size. Throws Error unless batch_size >= 1, 0 <= rank < world and
  // 0 <= skipped <= samples.
  MicroBatches(int64_t samples, int64_t batch_size, Shard shard = {}, int64_t skipped = 0);

  int64_t count() const { return count_; }
  int64_t skipped() const { return skipped_; }
  // Places of this process in micro-batch i. REQUIRES: 0 <= i < count().
  Places Of(int64_t i) const;

 private:
  int64_t samples_;
  int64_t together_;  // places of a full micro-batch of all processes
  Shard shard_;
  int64_t skipped_;
  int64_t count_;
};

}  // namespace kinefit
