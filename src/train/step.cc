#include "train/step.h"

#include <cmath>

#include "files/error.h"
#include "model/loss.h"
#include "random/stream.h"
#include "train/gradient_norm.h"
#include "train/precision.h"

namespace kinefit {
namespace {

at::Device DeviceOf(const Network& network) {
  if (network.parameters().empty()) throw Error("the network has no parameters to train");
  return network.parameters().front().tensor.device();
}

at::Tensor ToDevice(const at::Tensor& tensor, const at::Device& device) {
  return tensor.defined() ? tensor.to(device, tensor.scalar_type(), /*non_blocking=*/true) : tensor;
}

// How many samples the fused score (sum of the softmaxes) ranks first; scalar tensor.
at::Tensor CountCorrect(const NetworkOutput& output, const at::Tensor& labels) {
  at::Tensor fused;
  for (const auto& [stream, logits] : output.logits) {
    const at::Tensor score = at::softmax(logits.detach(), 1, at::kFloat);
    fused = fused.defined() ? fused + score : score;
  }
  return fused.argmax(1).eq(labels).sum();
}

// What the update in place may allocate at once: numbers that LibTorch wraps into tensors.
constexpr int64_t kUpdateRoom = 4096;

// BN statistics as they were, to undo a forward pass that must not count.
class BufferSnapshot {
 public:
  explicit BufferSnapshot(const Network& network) : network_(network) {
    for (const NamedTensor& buffer : network.buffers()) saved_.push_back(buffer.tensor.clone());
  }
  void Restore() const {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < saved_.size(); ++i) {
      at::Tensor target = network_.buffers()[i].tensor;
      target.copy_(saved_[i]);
    }
  }

 private:
  const Network& network_;
  std::vector<at::Tensor> saved_;
};

}  // namespace

struct TrainStep::Sums {
  int64_t samples = 0;
  at::Tensor loss;
  at::Tensor correct;
  std::vector<std::pair<std::string, at::Tensor>> parts;

  void Add(const Loss& micro, const at::Tensor& micro_correct, int64_t n) {
    const at::NoGradGuard no_grad;
    const auto weight = static_cast<double>(n);
    const bool first = samples == 0;
    samples += n;
    const at::Tensor total = micro.total.detach() * weight;
    loss = first ? total : loss + total;
    correct = first ? micro_correct : correct + micro_correct;
    for (size_t i = 0; i < micro.parts.size(); ++i) {
      const at::Tensor part = micro.parts[i].second.detach() * weight;
      if (first) {
        parts.emplace_back(micro.parts[i].first, part);
      } else {
        parts[i].second = parts[i].second + part;
      }
    }
  }
};

TrainStep::TrainStep(Network& network, const Config& config, Optimizer& optimizer,
                     LossScaler* scaler)
    : network_(network),
      config_(config),
      optimizer_(optimizer),
      scaler_(scaler),
      device_(DeviceOf(network)) {
  network.SetComputeType(ComputeType(config.train.precision, device_));
  if (device_.is_meta()) {
    reserve_on_meta_ =
        at::empty({kUpdateRoom}, at::TensorOptions().device(device_).dtype(at::kByte));
  } else {
    reserve_ = std::make_unique<AllocationReserve>(kUpdateRoom);
  }
}

StepResult TrainStep::Run(int64_t iteration, double lr, const std::function<bool(Batch*)>& next) {
  at_work_ = "forward";
  const BufferSnapshot before(network_);
  bool undo = true;
  const auto finish = [&] {
    if (undo) before.Restore();
    ClearGradients();
  };
  try {
    StepResult result = Attempt(iteration, lr, next, &undo);
    finish();
    return result;
  } catch (...) {
    finish();
    throw;
  }
}

// `*undo` turns false when the step counts, in which case nothing throws any more.
StepResult TrainStep::Attempt(int64_t iteration, double lr, const std::function<bool(Batch*)>& next,
                              bool* undo) {
  StepResult result;
  Sums sums;
  ClearGradients();
  Batch batch;
  const auto get = [&] {
    at_work_ = "loading";
    return next(&batch);
  };
  for (int64_t micro = 0; get(); ++micro) {
    RunMicroBatch(batch, iteration, micro, &sums);
    result.ids.insert(result.ids.end(), batch.ids.begin(), batch.ids.end());
    batch = Batch();
  }
  if (sums.samples == 0) return result;

  at_work_ = "update";
  const double nominal = static_cast<double>(
      config_.train.accumulate > 1 ? config_.train.accumulate * config_.train.batch_size
                                   : sums.samples);
  const double scale = scaler_ == nullptr ? 1 : scaler_->scale();
  ScaleGradients(nominal / static_cast<double>(sums.samples) / scale);
  const std::vector<at::Tensor> gradients = Gradients(network_.parameters());
  Conclude(sums, GradientNorm(gradients), &result);

  const bool loss_finite = std::isfinite(result.loss);
  const bool norm_finite = std::isfinite(result.grad_norm);
  result.overflow = scaler_ != nullptr && loss_finite && !norm_finite && !scaler_->exhausted();
  result.finite = (loss_finite && norm_finite) || result.overflow;
  const bool update = result.finite && !result.overflow;
  if (update) {
    const double limit = config_.train.optimizer.clip_norm;
    if (limit > 0) ClipGradients(gradients, result.grad_norm, limit);
    optimizer_.Prepare();
  }
  // From here on nothing fails for want of memory.
  const AllocationReserve::Use reserve;
  if (scaler_ != nullptr && result.finite) scaler_->Update(result.overflow);
  if (update) optimizer_.Step(lr);
  *undo = !result.finite;
  return result;
}

void TrainStep::RunMicroBatch(const Batch& batch, int64_t iteration, int64_t micro, Sums* sums) {
  const auto n = static_cast<int64_t>(batch.ids.size());
  RandomStream random(static_cast<uint64_t>(config_.seed), "step", static_cast<uint64_t>(iteration),
                      static_cast<uint64_t>(micro));
  NetworkInput input;
  at_work_ = "forward";
  input.imgs = ToDevice(batch.imgs, device_);
  input.heatmap_imgs = ToDevice(batch.heatmap_imgs, device_);
  const at::Tensor labels = ToDevice(batch.labels, device_);
  NetworkOutput output = network_.Forward(input, random);
  output.feature_rgb = output.feature_pose = at::Tensor();  // not to last through the backward pass
  const Loss loss = ComputeLoss(output, labels, config_.model.head);

  at_work_ = "backward";
  double factor = scaler_ == nullptr ? 1 : scaler_->scale();
  if (config_.train.accumulate > 1) {
    factor *= static_cast<double>(n) /
              static_cast<double>(config_.train.accumulate * config_.train.batch_size);
  }
  if (factor == 1) {
    loss.total.backward();
  } else {
    (loss.total * factor).backward();
  }
  sums->Add(loss, CountCorrect(output, labels), n);
}

// Brings all numbers of the step to the host in one transfer.
void TrainStep::Conclude(const Sums& sums, const at::Tensor& norm, StepResult* result) const {
  result->samples = sums.samples;
  std::vector<at::Tensor> numbers = {sums.loss, sums.correct, norm.to(device_)};
  for (const auto& [stream, part] : sums.parts) numbers.push_back(part);
  for (at::Tensor& number : numbers) number = number.reshape({}).to(at::kDouble);
  if (device_.is_meta()) return;
  const at::Tensor host = at::stack(numbers).cpu();
  const double* values = host.data_ptr<double>();
  const auto samples = static_cast<double>(sums.samples);
  result->loss = values[0] / samples;
  result->top1 = values[1] / samples;
  result->grad_norm = values[2];
  for (size_t i = 0; i < sums.parts.size(); ++i) {
    result->losses.emplace_back(sums.parts[i].first, values[3 + i] / samples);
  }
}

void TrainStep::ScaleGradients(double factor) {
  if (factor == 1) return;
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> gradients = Gradients(network_.parameters());
  if (!gradients.empty()) at::_foreach_mul_(gradients, factor);
}

void TrainStep::ClearGradients() {
  for (const NamedTensor& parameter : network_.parameters()) {
    parameter.tensor.mutable_grad() = at::Tensor();
  }
}

}  // namespace kinefit
