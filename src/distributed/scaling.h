#pragma once

#include <cstdint>
#include <vector>

namespace kinefit {

// What a training step on several devices is made of.
struct ScalingModel {
  double forward = 0;   // seconds of one device, for all micro-batches but the last one's backward
  double backward = 0;  // seconds of the last micro-batch's backward pass
  double update = 0;    // seconds behind the gradients
  struct Bucket {
    double bytes = 0;
    double ready = 0;  // share of the backward pass after which its gradients are there, in [0, 1]
  };
  std::vector<Bucket> buckets;  // in the order in which they are sent
  double bytes_per_second = 0;  // of each device's link, in one direction
  double latency = 0;           // seconds from one device to the next
  int64_t exchanges = 0;        // of batch norm statistics in a step, which everybody waits for
  double exchange_bytes = 0;    // each
  double exchange_latency = 0;  // seconds from one device to the next, through the CPU
};

struct ScalingEstimate {
  int64_t devices = 1;
  double step = 0;        // seconds
  double exposed = 0;     // of which waiting for gradients
  double statistics = 0;  // of which exchanging batch norm statistics
  double efficiency = 1;  // step time of one device / this step time
};

// A ring all-reduce of b bytes over n devices takes 2 (n - 1) / n * b / bandwidth
// + 2 (n - 1) * latency seconds (Patarasuk and Yuan, 2009). Bucket i starts when its gradients are
// there and the one before it is done; the update starts when the backward pass and the last bucket
// are done. The batch of each device stays the same.
ScalingEstimate EstimateScaling(const ScalingModel& model, int64_t devices);

}  // namespace kinefit
