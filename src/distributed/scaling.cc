#include "distributed/scaling.h"

#include <algorithm>

namespace kinefit {
namespace {

double RingSeconds(double bytes, double bandwidth, double latency, int64_t devices) {
  if (devices < 2) return 0;
  const auto n = static_cast<double>(devices);
  return 2 * (n - 1) / n * bytes / bandwidth + 2 * (n - 1) * latency;
}

}  // namespace

ScalingEstimate EstimateScaling(const ScalingModel& model, int64_t devices) {
  ScalingEstimate estimate;
  estimate.devices = devices;
  estimate.statistics =
      static_cast<double>(model.exchanges) *
      RingSeconds(model.exchange_bytes, model.bytes_per_second, model.exchange_latency, devices);
  double done = 0;
  for (const ScalingModel::Bucket& bucket : model.buckets) {
    done = std::max(done, bucket.ready * model.backward) +
           RingSeconds(bucket.bytes, model.bytes_per_second, model.latency, devices);
  }
  if (devices > 1) estimate.exposed = std::max(0.0, done - model.backward);
  const double alone = model.forward + model.backward + model.update;
  estimate.step = alone + estimate.exposed + estimate.statistics;
  estimate.efficiency = alone / estimate.step;
  return estimate;
}

}  // namespace kinefit
