#include "train/step_rehearsal.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include "distributed/rehearsed_exchange.h"
#include "files/error.h"
#include "loader/device_heatmaps.h"
#include "memory/cuda_cache.h"
#include "memory/cuda_constants.h"
#include "memory/meta_kernels.h"
#include "memory/trace.h"
#include "model/network.h"
#include "train/ema.h"
#include "train/loss_scaler.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace kinefit {
namespace {

const auto kMetaFloat = at::TensorOptions().device(at::kMeta).dtype(at::kFloat);

// A batch as the loader makes it.
Batch MakeBatch(const Config& config, int64_t samples, int64_t side, int64_t clips) {
  Batch batch;
  const DataConfig& data = config.data;
  const int64_t n = samples * clips;
  if (config.model.has_rgb()) {
    batch.imgs =
        at::empty({n, config.model.rgb.in_channels, data.rgb_frames, side, side}, kMetaFloat);
  }
  if (config.model.has_pose() && data.heatmap.draw_on == "device") {
    batch.joints = EmptyJoints(config, n, side, kMetaFloat);
  } else if (config.model.has_pose()) {
    const auto size = std::llround(static_cast<double>(side) * data.heatmap.scaling);
    batch.heatmap_imgs =
        at::empty({n, config.model.pose.in_channels, data.pose_frames, size, size}, kMetaFloat);
  }
  batch.labels = at::empty({samples}, kMetaFloat.dtype(at::kLong));
  batch.ids.resize(static_cast<size_t>(samples));
  batch.clips = clips;
  return batch;
}

void MarkGradients(const Network& network, MemoryTrace& trace) {
  for (const NamedTensor& parameter : network.parameters()) {
    const at::Tensor& gradient = parameter.tensor.grad();
    if (!gradient.defined()) continue;
    TracedBlock* block = trace.Find(gradient.storage().data_ptr());
    if (block != nullptr) block->role = MemoryRole::kGradients;
  }
}

std::vector<size_t> LastToFirst(size_t count) {
  std::vector<size_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = count - 1 - i;
  return order;
}

// Makes the optimizer's state as its first step does.
void TakeFirstUpdate(const Network& network, Optimizer& optimizer) {
  for (const NamedTensor& parameter : network.parameters()) {
    parameter.tensor.mutable_grad() = at::empty_like(parameter.tensor.detach());
  }
  optimizer.Step(0);
  for (const NamedTensor& parameter : network.parameters()) {
    parameter.tensor.mutable_grad() = at::Tensor();
  }
}

// Everything a run has between two steps, and the step, on the meta device.
class RehearsedRun {
 public:
  RehearsedRun(const Config& config, int64_t world)
      : config_(config), world_(world), cuda_(config.device.compare(0, 4, "cuda") == 0) {
    // From the second micro-batch on the gradients of the earlier ones are there; more change
    // nothing.
    config_.train.accumulate = std::min<int64_t>(config.train.accumulate, 2);
    SetKernelModel(cuda_ ? KernelModel::kCuda : KernelModel::kCpu);
    trace_.SetRole(MemoryRole::kWeights);
    network_ = MakeNetwork(config.model, kMetaFloat);
    network_->Train(true);
    const std::string how = config.memory.recompute == "auto" ? "lean" : config.memory.recompute;
    network_->SetRecompute(ParseRecompute(how, network_->Segments(), "memory.recompute"));
    trace_.SetRole(MemoryRole::kOptimizer);
    optimizer_ = MakeOptimizer(config.train.optimizer, network_->parameters());
    TakeFirstUpdate(*network_, *optimizer_);
    if (config.train.ema) ema_.emplace(*network_, config.train.ema_momentum);
    if (world > 1) {
      trace_.SetRole(MemoryRole::kGradients);
      std::vector<at::Tensor> parameters;
      for (const NamedTensor& parameter : network_->parameters()) {
        parameters.push_back(parameter.tensor);
      }
      exchange_ = RehearseExchange(parameters, LastToFirst(parameters.size()),
                                   static_cast<double>(config.distributed.bucket_mib << 20));
    }
    trace_.SetRole(MemoryRole::kPrefetch);
    // The loader keeps at least one batch ahead, in the CPU's memory wherever the network runs.
    if (!cuda_) {
      for (int64_t i = 0; i < std::max<int64_t>(config.data.prefetch, 1); ++i) {
        waiting_.push_back(MakeBatch(config, config.train.batch_size, config.data.crop, 1));
      }
    }
  }

  void TakeStep() {
    LossScaler scaler;
    TrainStep step(*network_, config_, *optimizer_,
                   config_.train.precision == "fp16" ? &scaler : nullptr,
                   StepPartners{exchange_.get(), world_, config_.distributed.sync_bn, nullptr});
    int64_t left = config_.train.accumulate;
    step.Run(0, 0, [&](Batch* batch) {
      MarkGradients(*network_, trace_);
      if (left-- == 0) return false;
      trace_.SetRole(MemoryRole::kInput);
      *batch = MakeBatch(config_, config_.train.batch_size, config_.data.crop, 1);
      trace_.SetRole(MemoryRole::kActivations);
      return true;
    });
  }

  // The forward pass of one batch of the validation, as evaluate/ makes them; its loader's batches
  // come on top of the training's.
  void Validate() {
    const at::NoGradGuard no_grad;
    network_->Train(false);
    const int64_t clips = std::max<int64_t>(config_.eval.val_clips, 1);
    const int64_t samples = std::max<int64_t>(config_.eval.batch_size / clips, 1);
    trace_.SetRole(MemoryRole::kPrefetch);
    std::vector<Batch> ready;
    for (int64_t i = 0; !cuda_ && i < std::max<int64_t>(config_.data.prefetch, 1); ++i) {
      ready.push_back(MakeBatch(config_, samples, config_.data.test_size, clips));
    }
    trace_.SetRole(MemoryRole::kInput);
    const Batch batch = MakeBatch(config_, samples, config_.data.test_size, clips);
    trace_.SetRole(MemoryRole::kActivations);
    RandomStream unused(0, "rehearsal");
    network_->Forward({batch.imgs, HeatmapsOn(batch, config_.data, at::kMeta)}, unused);
  }

  std::vector<size_t> GradientOrder() {
    std::vector<size_t> order;
    std::vector<char> seen(network_->parameters().size(), 0);
    for (size_t i = 0; i < seen.size(); ++i) {
      const at::Tensor& parameter = network_->parameters()[i].tensor;
      parameter.register_hook([&order, &seen, i](const at::Tensor& /*gradient*/) {
        if (seen[i] == 0) order.push_back(i);
        seen[i] = 1;
      });
    }
    TakeStep();
    // Without a gradient in this rehearsal, or none at all: they come last.
    for (size_t i = 0; i < seen.size(); ++i) {
      if (seen[i] == 0) order.push_back(i);
    }
    return order;
  }

  Rehearsal Run() {
    const int64_t begin = trace_.now();
    TakeStep();
    const int64_t end = trace_.now();
    const std::vector<std::string> segments = network_->Segments();
    Rehearsal result =
        Summarise(trace_, begin, end, static_cast<int>(segments.size()),
                  [&](const std::string& layer) { return SegmentOfLayer(layer, segments); });
    if (cuda_) AddCuda(end, &result);
    if (config_.train.val_every > 0) {
      trace_.ResetPeak();
      Validate();
      result.validation_peak = trace_.peak();
    }
    return result;
  }

 private:
  // What cuBLAS takes through the same cache, and keeps: one for each of the threads that compute,
  // the main one and that of the backward pass. The GPU may be any: the largest.
  static std::vector<TracedBlock> MatrixWorkspaces() {
    TracedBlock workspace;
    workspace.bytes = cuda_constants::kCublasWorkspace;
    workspace.role = MemoryRole::kWeights;
    return {2, workspace};
  }

  void AddCuda(int64_t end, Rehearsal* result) const {
    std::vector<TracedBlock> blocks = MatrixWorkspaces();
    for (const TracedBlock& block : trace_.blocks()) {
      if (block.born <= end) blocks.push_back(block);
    }
    result->reserved = ReplayOnCuda(blocks).at_peak.reserved;
    CudaProcess process;
    process.devices = static_cast<int>(world_);
    result->outside = OutsideBytes(process).planned;
  }

  Config config_;
  const int64_t world_;
  const bool cuda_;
  MemoryTrace trace_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Optimizer> optimizer_;
  std::optional<Ema> ema_;
  std::unique_ptr<StepExchange> exchange_;
  std::vector<Batch> waiting_;
};

}  // namespace

namespace {

// Runs what rehearses `config`, with complaints in the user's terms.
template <typename Run>
auto Rehearsed(const Run& run) {
  RegisterMetaKernels();
  try {
    return run();
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error& error) {
    throw Error("the training step cannot run with this configuration: " +
                    error.msg().substr(0, error.msg().find('\n')),
                "", "check clip length, crop size and the network's strides against each other");
  }
}

}  // namespace

Rehearsal RehearseStep(const Config& config) { return RehearseRankStep(config, 1); }

std::vector<size_t> GradientOrder(const Config& config) {
  return Rehearsed([&] { return RehearsedRun(config, 1).GradientOrder(); });
}

Rehearsal RehearseRankStep(const Config& config, int64_t world) {
  const auto start = std::chrono::steady_clock::now();
  return Rehearsed([&] {
    RehearsedRun run(config, world);
    Rehearsal result = run.Run();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    result.seconds = elapsed.count();
    return result;
  });
}

}  // namespace kinefit
