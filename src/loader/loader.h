#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "dataset/annotations.h"
#include "loader/sampler.h"
#include "random/stream.h"
#include "transform/pipeline.h"

namespace kinefit {

// What the heatmaps of a batch are still to be drawn from (HeatmapsOn in device_heatmaps.h).
struct HeatmapJoints {
  // [N*K, persons, 3, V, T] float32, as JointsOutput; K without the mirrored clips.
  at::Tensor tensor;
  int64_t side = 0;       // of the square image, in pixels of which x and y are
  bool mirrored = false;  // behind the clips of each sample their mirror images are to come
};

// One micro-batch. With K clips per sample the first dimension is N*K, clips of a sample adjacent.
struct Batch {
  at::Tensor imgs;                    // [N*K, 3, T, H, W] float32, undefined without an RGB stream
  at::Tensor heatmap_imgs;            // [N*K, C, T, H, W] float32, undefined without a pose stream
  HeatmapJoints joints;               // instead, with data.heatmap.draw_on = "device"
  at::Tensor labels;                  // [N] int64
  std::vector<std::string> ids;       // [N]
  std::vector<int64_t> sample_index;  // [N] index into the dataset
  int64_t clips = 1;                  // K
  int64_t first_row = 0;  // sample 0's place among those of all processes' part of this batch
};

struct BadClip {
  std::string id;
  std::string reason;
};

// Where a loader stands: batches already handed out in `epoch`, counted from its sample `skipped`
// on. The same for all processes of a run.
struct LoaderPosition {
  int64_t epoch = 0;
  int64_t next_batch = 0;
  // Samples at the start of the epoch's order that belong to no batch: they were seen before the
  // run went on with batches of another size, or with another number of processes.
  int64_t skipped = 0;
};

// What a loader gives out in `epoch`, in its order: indices into the dataset's samples.
std::vector<int64_t> EpochOrder(const Dataset& dataset, const Config& config, Phase phase,
                                int64_t epoch);
// The random stream of the sample at `place` of an epoch's order.
RandomStream AugmentStream(const Config& config, int64_t epoch, int64_t place);

// Feeds micro-batches of one dataset from N worker threads with bounded prefetch. The order and
// every random draw are functions of (seed, epoch, sample) alone, so any number of workers, and
// a loader started in mid-epoch, give the same batches. A clip that cannot be read is left out of
// its batch and counted (train) and Next() throws Error once their share of the epoch exceeds
// config.data.max_bad_share. In kTest a bad clip is left out and counted in the same way.
// With a shard it makes this process's part of every batch (MicroBatches); the bad clips that it
// counts are its own, their share is still of the whole epoch. One consumer thread.
class Loader {
 public:
  // `batch_size`: of this process alone. `clips`, `flip`: as in RunPipeline. Training shuffles,
  // balances and repeats (Sampler); test keeps the order. The dataset must outlive the loader.
  Loader(const Dataset& dataset, const Config& config, Phase phase, int64_t batch_size,
         int64_t clips = 1, bool flip = false, Shard shard = {});
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Starts an epoch (0-based) at batch `next_batch`; drops whatever was prefetched.
  void Start(LoaderPosition position);
  // Lets go of what `*batch` holds, then waits for the next one; false at the end of the epoch. A
  // batch of which every clip was bad, or of which this process has no part, is skipped; position()
  // tells the number of the one that was handed out.
  bool Next(Batch* batch);

  int64_t batches_per_epoch() const;  // of a whole epoch; the same for every rank; the last may be
                                      // short
  int64_t samples_per_epoch() const;  // of all ranks together
  LoaderPosition position() const;
  // Bad clips met since Start (each once).
  std::vector<BadClip> bad_clips() const;
  // Seconds Next() has waited since Start: the data-wait share.
  double wait_seconds() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kinefit
