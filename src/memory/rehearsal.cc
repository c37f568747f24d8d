#include "memory/rehearsal.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <unordered_map>

#include "files/error.h"
#include "memory/meta_kernels.h"
#include "memory/trace.h"
#include "model/loss.h"
#include "model/network.h"
#include "random/stream.h"

namespace kinefit {
namespace {

const auto kMetaFloat = at::TensorOptions().device(at::kMeta).dtype(at::kFloat);

struct MetaBatch {
  NetworkInput input;
  at::Tensor labels;
};

// A training batch as the transforms make it.
MetaBatch MakeBatch(const Config& config, int64_t clips) {
  MetaBatch batch;
  const DataConfig& data = config.data;
  if (config.model.has_rgb()) {
    batch.input.imgs = at::empty({clips, 3, data.rgb_frames, data.crop, data.crop}, kMetaFloat);
  }
  if (config.model.has_pose()) {
    const auto side = std::llround(static_cast<double>(data.crop) * data.heatmap.scaling);
    batch.input.heatmap_imgs =
        at::empty({clips, config.model.pose.in_channels, data.pose_frames, side, side}, kMetaFloat);
  }
  batch.labels = at::empty({clips}, kMetaFloat.dtype(at::kLong));
  return batch;
}

std::vector<at::Tensor> LikeParameters(const Network& network, int copies) {
  std::vector<at::Tensor> state;
  for (int copy = 0; copy < copies; ++copy) {
    for (const NamedTensor& parameter : network.parameters()) {
      state.push_back(at::empty(parameter.tensor.sizes(), parameter.tensor.options()));
    }
  }
  return state;
}

// What outlives a step: the optimizer's state and the moving average of the weights.
std::vector<at::Tensor> OptimizerState(const Network& network, const TrainConfig& config) {
  int copies = config.ema ? 1 : 0;
  if (config.optimizer.type == "adamw") copies += 2;
  if (config.optimizer.type == "sgd" && config.optimizer.momentum != 0) copies += 1;
  return LikeParameters(network, copies);
}

// "backbone.rgb_path.layer3.0.conv1.conv.weight" -> "backbone.rgb_path.layer3.0.conv1": a layer's
// convolution and norm share the name.
std::string LayerName(std::string parameter) {
  parameter.resize(parameter.rfind('.'));
  for (const std::string part : {".conv", ".bn"}) {
    const size_t at = parameter.size() - std::min(parameter.size(), part.size());
    if (parameter.compare(at, std::string::npos, part) == 0) parameter.resize(at);
  }
  return parameter;
}

// Tells the trace which layer runs while it lives.
class LayerNaming {
 public:
  LayerNaming(const Network& network, MemoryTrace& trace) {
    for (const NamedTensor& parameter : network.parameters()) {
      names_[parameter.tensor.unsafeGetTensorImpl()] = LayerName(parameter.name);
    }
    SetLayerObserver([this, &trace](const at::Tensor& weight) {
      const auto name = names_.find(weight.unsafeGetTensorImpl());
      if (name != names_.end()) trace.SetLayer(name->second);
    });
  }
  ~LayerNaming() { SetLayerObserver(nullptr); }
  LayerNaming(const LayerNaming&) = delete;
  LayerNaming& operator=(const LayerNaming&) = delete;

 private:
  std::unordered_map<const c10::TensorImpl*, std::string> names_;
};

void MarkGradients(const Network& network, MemoryTrace& trace) {
  for (const NamedTensor& parameter : network.parameters()) {
    const at::Tensor& gradient = parameter.tensor.grad();
    if (!gradient.defined()) continue;
    TracedBlock* block = trace.Find(gradient.storage().data_ptr());
    if (block != nullptr) block->role = MemoryRole::kGradients;
  }
}

void RunMicroBatch(Network& network, const Config& config, const MetaBatch& batch) {
  RandomStream random(static_cast<uint64_t>(config.seed), "rehearsal");
  const NetworkOutput output = network.Forward(batch.input, random);
  const Loss loss = ComputeLoss(output, batch.labels, config.model.head);
  if (config.train.accumulate > 1) {
    (loss.total * 0.5).backward();
  } else {
    loss.total.backward();
  }
}

// The steps of train/step.cc. Clipping and update work in place on gradients and state, so the peak
// is over when the last backward pass is.
void RunStep(Network& network, const Config& config, int64_t batch_size, MemoryTrace& trace) {
  trace.SetRole(MemoryRole::kActivations);
  std::vector<at::Tensor> statistics_before;
  for (const NamedTensor& buffer : network.buffers()) {
    statistics_before.push_back(buffer.tensor.clone());
  }
  // From the second micro-batch on the gradients of the earlier ones are there; more change
  // nothing.
  for (int64_t micro = 0; micro < std::min<int64_t>(config.train.accumulate, 2); ++micro) {
    trace.SetRole(MemoryRole::kInput);
    const MetaBatch batch = MakeBatch(config, batch_size);
    trace.SetRole(MemoryRole::kActivations);
    RunMicroBatch(network, config, batch);
    MarkGradients(network, trace);
  }
}

Rehearsal Summarise(const MemoryTrace& trace) {
  Rehearsal result;
  result.peak = trace.peak();
  std::map<int, int64_t> by_layer;
  for (const TracedBlock& block : trace.blocks()) {
    if (!trace.AliveAtPeak(block)) continue;
    switch (block.role) {
      case MemoryRole::kWeights:
        result.weights += block.bytes;
        break;
      case MemoryRole::kGradients:
        result.gradients += block.bytes;
        break;
      case MemoryRole::kOptimizer:
        result.optimizer += block.bytes;
        break;
      case MemoryRole::kInput:
        result.input += block.bytes;
        break;
      case MemoryRole::kActivations:
        result.activations += block.bytes;
        if (block.layer >= 0) by_layer[block.layer] += block.bytes;
        break;
    }
  }
  for (const auto& [layer, bytes] : by_layer)
    result.layers.push_back({trace.layers()[layer], bytes});
  std::stable_sort(result.layers.begin(), result.layers.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return result;
}

}  // namespace

Rehearsal Rehearse(const Config& config, int64_t batch_size) {
  const auto start = std::chrono::steady_clock::now();
  RegisterMetaKernels();
  MemoryTrace trace;
  const bool cuda = config.device.compare(0, 4, "cuda") == 0;
  SetKernelModel(cuda ? KernelModel::kCuda : KernelModel::kCpu);
  trace.SetRole(MemoryRole::kWeights);
  const std::unique_ptr<Network> network = MakeNetwork(config.model, kMetaFloat);
  network->Train(true);
  const LayerNaming naming(*network, trace);
  trace.SetRole(MemoryRole::kOptimizer);
  const std::vector<at::Tensor> state = OptimizerState(*network, config.train);
  trace.SetRole(MemoryRole::kInput);
  // The loader keeps at least one batch ahead, in the CPU's memory wherever the network runs.
  std::vector<MetaBatch> waiting;
  if (!cuda) {
    for (int64_t i = 0; i < std::max<int64_t>(config.data.prefetch, 1); ++i) {
      waiting.push_back(MakeBatch(config, batch_size));
    }
  }
  try {
    RunStep(*network, config, batch_size, trace);
  } catch (const c10::Error& error) {
    throw Error("the training step cannot run with this configuration: " +
                    error.msg().substr(0, error.msg().find('\n')),
                "", "check clip length, crop size and the network's strides against each other");
  }
  Rehearsal result = Summarise(trace);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  result.seconds = elapsed.count();
  return result;
}

int64_t LargestFitting(const std::function<int64_t(int64_t)>& peak, int64_t budget, int64_t limit) {
  // Memory is nearly linear in the batch: aim at where the line meets the budget, and keep the
  // answer between a batch that fits and one that does not.
  int64_t fits = 0;
  int64_t fails = limit + 1;
  int64_t fits_peak = 0;
  int64_t fails_peak = 0;  // 0 = none has failed yet
  int64_t candidate = 1;
  while (fails - fits > 1) {
    const int64_t need = peak(candidate);
    if (need <= budget) {
      fits = candidate;
      fits_peak = need;
    } else {
      fails = candidate;
      fails_peak = need;
    }
    if (fails_peak == 0) {
      candidate = fits * 2;
    } else {
      const double slope =
          static_cast<double>(fails_peak - fits_peak) / static_cast<double>(fails - fits);
      candidate = fits + static_cast<int64_t>(static_cast<double>(budget - fits_peak) / slope);
    }
    candidate = std::max(fits + 1, std::min(candidate, fails - 1));
  }
  return fits;
}

int64_t LargestBatch(const Config& config, int64_t budget, int64_t limit) {
  return LargestFitting([&](int64_t batch) { return Rehearse(config, batch).peak; }, budget, limit);
}

}  // namespace kinefit
