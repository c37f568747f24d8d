#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "distributed/step_exchange.h"
#include "loader/loader.h"
#include "memory/cpu_allocator.h"
#include "model/network.h"
#include "train/loss_scaler.h"
#include "train/optimizer.h"

namespace kinefit {

// What one optimizer step came to. Means are over the samples of the step.
struct StepResult {
  int64_t samples = 0;
  double loss = 0;
  std::vector<std::pair<std::string, double>> losses;  // per stream, weighted
  double top1 = 0;       // of the fused score (sum of the streams' softmaxes), in [0, 1]
  double grad_norm = 0;  // before clipping
  // False: loss or gradient norm was NaN or infinite, and nothing was updated.
  bool finite = true;
  // fp16 only: the gradients overflowed at the present loss scale; nothing was updated. Expected
  // now and then, not a fault.
  bool overflow = false;
  std::vector<std::string> ids;  // of this rank's samples, micro-batch by micro-batch
  // With several ranks. Some rank was asked to stop:
  bool stop = false;
  // A rank whose running BN statistics have seen the whole step, -1: all have.
  int64_t statistics_of = -1;
};

// The other ranks, as a step sees them. Without: this process is alone.
struct StepPartners {
  StepExchange* exchange = nullptr;  // not owned
  int64_t world = 1;
  bool sync_bn = false;
  const std::atomic<bool>* interrupted = nullptr;  // this process was asked to stop; may be null
};

// One optimizer step: forward and backward of each micro-batch, accumulation, norm, clipping,
// update. A function of (weights, optimizer state, micro-batches, seed, iteration) alone.
class TrainStep {
 public:
  // Sets what `network` computes in. `scaler` is null unless the precision is fp16. All must
  // outlive the object. On the meta device everything runs but no number has a value: results are
  // zero.
  TrainStep(Network& network, const Config& config, Optimizer& optimizer, LossScaler* scaler,
            const StepPartners& partners = {});

  // Draws micro-batches from `next` until it returns false (at most one is alive at a time) and
  // updates the weights once. The gradient is that of the mean loss over all samples of the step,
  // however they are spread over micro-batches: each micro-batch's mean loss is weighted by
  // its samples / (accumulate * batch_size), and if the samples then turn out to be fewer (end
  // of an epoch, bad clips), the summed gradients are scaled up once before they are used.
  // Without a single sample nothing is updated and `samples` is 0.
  //
  // All or nothing: where this throws (out of memory, an error of the loader behind `next`),
  // weights, optimizer state and BN statistics are as they were and no gradient is left, so that
  // the step can be run again from its first micro-batch.
  //
  // With partners it is a step of all ranks together: the gradient is that of the mean loss over
  // the samples of all, results but for the ids are everybody's, and it counts on all ranks or on
  // none: where one runs out of memory, the others throw StepCalledOff.
  StepResult Run(int64_t iteration, double lr, const std::function<bool(Batch*)>& next);

  // What Run() was at when it threw: "loading", "forward", "backward" or "update".
  const char* at_work() const { return at_work_; }
  // The ranks that ran out of memory in the last step, this one among them.
  const std::vector<int64_t>& failed_ranks() const { return failed_ranks_; }

 private:
  StepResult RunAlone(int64_t iteration, double lr, const std::function<bool(Batch*)>& next);
  struct Sums;  // over the micro-batches, on the device: no host synchronisation until the end
  StepResult Attempt(int64_t iteration, double lr, const std::function<bool(Batch*)>& next,
                     bool* undo);
  void RunMicroBatch(const Batch& batch, int64_t iteration, int64_t micro, Sums* sums);
  bool AddUp(const Sums& sums, int64_t micro_batches, StepResult* result);
  void Conclude(const Sums& sums, const at::Tensor& norm, StepResult* result) const;
  // Samples of a full step.
  double Nominal() const {
    return static_cast<double>(config_.train.accumulate * config_.train.batch_size *
                               partners_.world);
  }
  void ScaleGradients(double factor);
  void ClearGradients();

  Network& network_;
  const Config& config_;
  Optimizer& optimizer_;
  LossScaler* scaler_;
  StepPartners partners_;
  SumOverRanks sum_statistics_;  // empty: batch norms see this rank's samples only
  at::Device device_;
  const char* at_work_ = "forward";
  std::vector<int64_t> failed_ranks_;
  std::unique_ptr<AllocationReserve> reserve_;  // for the update in place
  at::Tensor reserve_on_meta_;                  // stands for it in a rehearsal
};

}  // namespace kinefit
