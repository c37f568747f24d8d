#include "apps/kinefit/plan_scaling.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include "distributed/gradient_buckets.h"
#include "distributed/scaling.h"
#include "files/error.h"
#include "memory/bytes.h"
#include "model/describe.h"
#include "report/table.h"
#include "train/step_rehearsal.h"

namespace kinefit {
namespace {

// Assumptions, all of them printed with the table.
constexpr double kCpuFlops = 0.1e12;  // what a device gives of its arithmetic
constexpr double kCudaFlops = 10e12;
constexpr double kBackwardShare = 2.0 / 3;  // of forward and backward together
constexpr double kRingLatency = 10e-6;      // seconds from device to device
constexpr double kHostLatency = 50e-6;      // the same through the CPUs (Gloo over TCP)

std::string Text(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

double StepSeconds(const Config& config, const NetworkDescription& network) {
  const double samples = static_cast<double>(config.train.batch_size * config.train.accumulate);
  // Backward costs two forwards; a multiply-accumulate is two operations.
  const double operations = 3 * 2 * static_cast<double>(network.macs) * samples;
  return operations / (config.device.compare(0, 4, "cuda") == 0 ? kCudaFlops : kCpuFlops);
}

// "backbone.x.conv1.bn.weight" belongs to the layer "backbone.x.conv1".
const LayerRecord* LayerOf(const std::string& parameter, const NetworkDescription& network) {
  const LayerRecord* found = nullptr;
  for (const LayerRecord& layer : network.layers) {
    if (parameter.compare(0, layer.name.size() + 1, layer.name + ".") != 0) continue;
    if (found == nullptr || layer.name.size() > found->name.size()) found = &layer;
  }
  return found;
}

// When the backward pass has the gradients of each bucket: as far on as it is with the arithmetic.
std::vector<ScalingModel::Bucket> BucketsOf(const Config& config,
                                            const NetworkDescription& network) {
  const auto built =
      MakeNetwork(config.model, at::TensorOptions().device(at::kMeta).dtype(at::kFloat));
  std::vector<at::Tensor> parameters;
  for (const NamedTensor& entry : built->parameters()) parameters.push_back(entry.tensor);
  const auto assignment = AssignBuckets(parameters, GradientOrder(config),
                                        static_cast<double>(config.distributed.bucket_mib << 20));
  std::vector<ScalingModel::Bucket> buckets;
  std::map<const LayerRecord*, bool> counted;
  double done = 0;
  for (const std::vector<size_t>& indices : assignment) {
    ScalingModel::Bucket bucket;
    for (const size_t index : indices) {
      bucket.bytes += static_cast<double>(parameters[index].nbytes());
      const LayerRecord* layer = LayerOf(built->parameters()[index].name, network);
      if (layer == nullptr || counted[layer]) continue;
      counted[layer] = true;
      done += static_cast<double>(layer->macs);
    }
    bucket.ready = network.macs > 0 ? std::min(1.0, done / static_cast<double>(network.macs)) : 1;
    buckets.push_back(bucket);
  }
  if (!buckets.empty()) buckets.back().ready = 1;
  return buckets;
}

ScalingModel ModelOf(const Config& config, const NetworkDescription& network, double step,
                     double bandwidth) {
  ScalingModel model;
  const double micro = step / static_cast<double>(config.train.accumulate);
  model.backward = micro * kBackwardShare;
  model.forward = step - model.backward;
  model.buckets = BucketsOf(config, network);
  model.bytes_per_second = bandwidth;
  model.latency = kRingLatency;
  model.exchange_latency = kHostLatency;
  if (!config.distributed.sync_bn) return model;
  int64_t norms = 0;
  double most = 0;
  for (const LayerRecord& layer : network.layers) {
    if (layer.kind.find("+ bn") == std::string::npos) continue;
    ++norms;
    most = std::max(most, static_cast<double>(layer.output.at(1)));
  }
  model.exchanges = 2 * norms * config.train.accumulate;  // forward and backward
  model.exchange_bytes = (2 * most + 1) * 8;
  return model;
}

}  // namespace

double ParseLink(const std::string& text) {
  const size_t per = text.find("/s");
  const std::string amount = text.substr(0, per);
  if (per == std::string::npos || per + 2 != text.size()) {
    throw Error("\"" + text + "\" is no speed of a link", "--link",
                "write bytes or bits per second, for example 25GB/s or 200Gbit/s");
  }
  const size_t bit = amount.find("bit");
  if (bit == std::string::npos) return static_cast<double>(ParseBytes(amount, "--link"));
  return static_cast<double>(ParseBytes(amount.substr(0, bit) + "B", "--link")) / 8;
}

std::string ScalingText(const Config& config, const ScalingRequest& request) {
  const double bandwidth = ParseLink(request.link);
  const NetworkDescription network = DescribeNetwork(config);
  const bool measured = request.step_seconds > 0;
  const double step = measured ? request.step_seconds : StepSeconds(config, network);
  const ScalingModel model = ModelOf(config, network, step, bandwidth);
  double bytes = 0;
  for (const ScalingModel::Bucket& bucket : model.buckets) bytes += bucket.bytes;

  std::vector<int64_t> counts = {1, 2, 4, 8, 16, 32, 64};
  if (std::find(counts.begin(), counts.end(), request.devices) == counts.end()) {
    counts.insert(std::upper_bound(counts.begin(), counts.end(), request.devices), request.devices);
  }
  std::vector<std::vector<std::string>> rows = {
      {"devices", "clips per step", "step", "gradients", "BN statistics", "efficiency", "clips/s"}};
  for (const int64_t n : counts) {
    const ScalingEstimate e = EstimateScaling(model, n);
    const int64_t clips = config.train.batch_size * config.train.accumulate * n;
    rows.push_back({std::to_string(n) + (n == request.devices ? " *" : ""), std::to_string(clips),
                    Text("%.3f s", e.step), Text("+%.3f s", e.exposed),
                    Text("+%.3f s", e.statistics), Text("%.1f %%", 100 * e.efficiency),
                    Text("%.1f", static_cast<double>(clips) / e.step)});
  }
  std::string text = "scaling over " + request.link + " (an estimate)\n" + FormatTable(rows);
  text +=
      "  one device: " + Text("%.3f s a step", step) +
      (measured
           ? " (as given with --step-time)"
           : " (estimated: 3 x 2 x MACs at " +
                 Text("%g TFLOP/s",
                      (config.device.compare(0, 4, "cuda") == 0 ? kCudaFlops : kCpuFlops) * 1e-12) +
                 "; give --step-time for a measured one)") +
      ", two thirds of the last micro-batch backward\n";
  text += "  gradients: " + std::to_string(model.buckets.size()) + " buckets, " +
          FormatAmount(static_cast<int64_t>(bytes)) +
          "; a ring all-reduce of b bytes takes 2 (n-1)/n b / link + 2 (n-1) x " +
          Text("%g us", kRingLatency * 1e6) +
          ";\n    a bucket goes when its layers' share of the backward arithmetic is done; what "
          "ends behind the backward pass is the column\n";
  if (model.exchanges > 0) {
    text += "  BN statistics (distributed.sync_bn): " + std::to_string(model.exchanges) +
            " sums a step, each 2 (n-1) x " + Text("%g us", kHostLatency * 1e6) +
            " through the CPUs, which nothing hides\n";
  }
  return text;
}

}  // namespace kinefit
