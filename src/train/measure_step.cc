#include "train/measure_step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

#include "files/error.h"
#include "loader/device_heatmaps.h"
#include "memory/cpu_allocator.h"
#include "memory/format_plan.h"
#include "model/describe.h"
#include "train/step.h"

namespace kinefit {
namespace {

// What random weights and random input must not be moved by.
constexpr double kLearningRate = 1e-6;

Batch RandomBatch(const Config& config) {
  const int64_t clips = config.train.batch_size;
  const NetworkInput like = TrainingInputOnMeta(config, clips);
  Batch batch;
  if (like.imgs.defined()) batch.imgs = at::rand(like.imgs.sizes());
  if (like.heatmap_imgs.defined() && config.data.heatmap.draw_on == "device") {
    batch.joints = EmptyJoints(config, clips, config.data.crop, at::kFloat);
    batch.joints.tensor.uniform_();
  } else if (like.heatmap_imgs.defined()) {
    batch.heatmap_imgs = at::rand(like.heatmap_imgs.sizes());
  }
  batch.labels = at::zeros({clips}, at::kLong);
  batch.ids.resize(static_cast<size_t>(clips));
  return batch;
}

Recompute WayOf(const Config& config, const Network& network) {
  const std::string& text = config.memory.recompute;
  return ParseRecompute(text == "auto" ? "lean" : text, network.Segments(), "memory.recompute");
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

MeasuredNetwork::MeasuredNetwork(const Config& config)
    : before_(CpuMemoryUse().current),
      config_(config),
      network_(MakeNetwork(config.model, at::kFloat)),
      optimizer_(MakeOptimizer(config.train.optimizer, network_->parameters())) {
  InitialiseNetwork(*network_, config.model, 1);
  network_->Train(true);
  if (config.train.ema) ema_.emplace(*network_, config.train.ema_momentum);
  Config first = config;
  first.train.batch_size = 1;
  first.train.accumulate = 1;
  Step(first);
}

MeasuredStep MeasuredNetwork::Step(const Config& config) {
  config_ = config;
  network_->SetRecompute(WayOf(config, *network_));
  std::vector<Batch> waiting;  // as the loader keeps them
  for (int64_t i = 0; i < std::max<int64_t>(config.data.prefetch, 1); ++i) {
    waiting.push_back(RandomBatch(config));
  }
  TrainStep step(*network_, config_, *optimizer_,
                 config.train.precision == "fp16" ? &scaler_ : nullptr);
  ResetPeak();
  double making = 0;
  const auto now = std::chrono::steady_clock::now;
  const auto seconds_since = [&](std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(now() - start).count();
  };
  const auto start = now();
  int64_t left = config.train.accumulate;
  step.Run(0, kLearningRate, [&](Batch* batch) {
    if (left-- == 0) return false;
    const auto made = now();
    *batch = RandomBatch(config);
    making += seconds_since(made);  // a loader does it beside the step
    return true;
  });
  return {CpuMemoryUse().peak - before_, seconds_since(start) - making};
}

std::vector<CalibratedPlan> Calibrate(const Config& config, const PlanReport& report,
                                      int64_t memory, int steps) {
  if (config.device != "cpu") {
    throw Error("steps are measured on the CPU only", "device = \"" + config.device + "\"",
                "leave --calibrate out, or add --set device=cpu to check the CPU's plan");
  }
  std::vector<CalibratedPlan> result = {{"as written", report.as_written, "", {}}};
  if (report.chosen >= 0 && !report.fits()) {
    result.push_back({"chosen", report.plans[static_cast<size_t>(report.chosen)], "", {}});
  }
  bool any = false;
  for (CalibratedPlan& entry : result) {
    if (entry.plan.peak > memory) {
      entry.not_run = "it needs " + BytesText(entry.plan.peak) + " and " + BytesText(memory) +
                      " are there for it on this machine";
    }
    any |= entry.not_run.empty();
  }
  if (!any) return result;
  MeasuredNetwork network(config);
  std::vector<std::vector<double>> seconds(result.size());
  for (int round = 0; round <= steps; ++round) {
    for (size_t i = 0; i < result.size(); ++i) {
      if (!result[i].not_run.empty()) continue;
      Config planned = config;
      Apply(result[i].plan, &planned);
      const MeasuredStep step = network.Step(planned);
      result[i].measured.peak = std::max(result[i].measured.peak, step.peak);
      if (round > 0) seconds[i].push_back(step.seconds);
    }
  }
  for (size_t i = 0; i < result.size(); ++i) {
    if (!seconds[i].empty()) result[i].measured.seconds = Median(seconds[i]);
  }
  return result;
}

}  // namespace kinefit
