#include "train/step.h"

#include <cmath>
#include <new>

#include "files/error.h"
#include "libtorch/versions.h"
#include "loader/device_heatmaps.h"
#include "memory/gpu.h"
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
  explicit BufferSnapshot(const Network& network) {
    for (const NamedTensor& buffer : network.buffers()) {
      buffers_.push_back(buffer.tensor);
      saved_.push_back(at::empty_like(buffer.tensor));
    }
    CopyAll(saved_, buffers_);
  }
  void Restore() {
    const at::NoGradGuard no_grad;
    CopyAll(buffers_, saved_);
  }

 private:
  std::vector<at::Tensor> buffers_;
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
                     LossScaler* scaler, const StepPartners& partners)
    : network_(network),
      config_(config),
      optimizer_(optimizer),
      scaler_(scaler),
      partners_(partners),
      device_(DeviceOf(network)) {
  if (partners_.exchange != nullptr && partners_.sync_bn) {
    sum_statistics_ = [this](at::Tensor& values) { partners_.exchange->SumStatistics(values); };
  }
  network.SetComputeType(ComputeType(config.train.precision, device_));
  if (device_.is_meta()) {
    reserve_on_meta_ =
        at::empty({kUpdateRoom}, at::TensorOptions().device(device_).dtype(at::kByte));
  } else {
    reserve_ = std::make_unique<AllocationReserve>(kUpdateRoom);
  }
}

StepResult TrainStep::Run(int64_t iteration, double lr, const std::function<bool(Batch*)>& next) {
  if (partners_.exchange == nullptr) return RunAlone(iteration, lr, next);
  StepExchange& exchange = *partners_.exchange;
  exchange.Begin();
  try {
    return RunAlone(iteration, lr, next);
  } catch (const StepCalledOff&) {
    throw;
  } catch (const c10::OutOfMemoryError&) {
    failed_ranks_ = exchange.Fail();
    throw;
  } catch (const std::bad_alloc&) {
    failed_ranks_ = exchange.Fail();
    throw;
  } catch (...) {
    exchange.Abandon();
    throw;
  }
}

StepResult TrainStep::RunAlone(int64_t iteration, double lr,
                               const std::function<bool(Batch*)>& next) {
  at_work_ = "forward";
  BufferSnapshot before(network_);
  bool undo = true;
  const auto finish = [&] {
    if (undo) before.Restore();
    ClearGradients();
  };
  try {
    StepResult result;
    WithMemoryErrors([&] { result = Attempt(iteration, lr, next, &undo); });
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
  int64_t micro = 0;
  for (; get(); ++micro) {
    RunMicroBatch(batch, iteration, micro, &sums);
    result.ids.insert(result.ids.end(), batch.ids.begin(), batch.ids.end());
    batch = Batch();
  }
  if (!AddUp(sums, micro, &result)) return result;

  at_work_ = "update";
  const auto samples = static_cast<double>(result.samples);
  const bool weighted = config_.train.accumulate > 1 || partners_.exchange != nullptr;
  const double scale = scaler_ == nullptr ? 1 : scaler_->scale();
  ScaleGradients((weighted ? Nominal() : samples) / samples / scale);
  const std::vector<at::Tensor> gradients = Gradients(network_.parameters());
  Conclude(sums, GradientNorm(gradients), &result);

  const bool loss_finite = std::isfinite(result.loss);
  const bool norm_finite = std::isfinite(result.grad_norm);
  result.overflow = scaler_ != nullptr && loss_finite && !norm_finite && !scaler_->exhausted();
  result.finite = (loss_finite && norm_finite) || result.overflow;
  const bool update = result.finite && !result.overflow;
  if (update) optimizer_.Prepare();
  if (partners_.exchange != nullptr) partners_.exchange->Ready(&result.grad_norm);
  // From here on nothing fails for want of memory.
  const AllocationReserve::Use reserve;
  const double limit = config_.train.optimizer.clip_norm;
  if (update && limit > 0) ClipGradients(gradients, result.grad_norm, limit);
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
  input.heatmap_imgs = HeatmapsOn(batch, config_.data, device_);
  const at::Tensor labels = ToDevice(batch.labels, device_);
  network_.SetBatchShare({sum_statistics_ ? &sum_statistics_ : nullptr, batch.first_row});
  NetworkOutput output = network_.Forward(input, random);
  output.feature_rgb = output.feature_pose = at::Tensor();  // not to last through the backward pass
  const Loss loss = network_.LossOf(output, labels);

  at_work_ = "backward";
  double factor = scaler_ == nullptr ? 1 : scaler_->scale();
  if (config_.train.accumulate > 1 || partners_.exchange != nullptr) {
    factor *= static_cast<double>(n) / Nominal();
  }
  // Behind a last micro-batch that does not come, the gradients are exchanged all the same.
  if (partners_.exchange != nullptr && micro + 1 == config_.train.accumulate) {
    partners_.exchange->ExpectGradients();
  }
  if (factor == 1) {
    loss.total.backward();
  } else {
    (loss.total * factor).backward();
  }
  sums->Add(loss, CountCorrect(output, labels), n);
}

// Gradients and numbers of all ranks; false if there is not a single sample in the step.
bool TrainStep::AddUp(const Sums& sums, int64_t micro_batches, StepResult* result) {
  result->samples = sums.samples;
  if (partners_.exchange == nullptr) return sums.samples > 0;
  StepTotals totals;
  totals.samples = static_cast<double>(sums.samples);
  totals.micro_batches = micro_batches;
  totals.stop = partners_.interrupted != nullptr && *partners_.interrupted;
  TORCH_CHECK(sums.parts.size() <= StepTotals::kStreams, "more streams than totals");
  if (sums.samples > 0 && !device_.is_meta()) {
    totals.loss = sums.loss.item<double>();
    totals.correct = sums.correct.item<double>();
    for (size_t i = 0; i < sums.parts.size(); ++i) {
      totals.losses[i] = sums.parts[i].second.item<double>();
    }
  }
  partners_.exchange->AddUp(&totals);
  result->samples = static_cast<int64_t>(totals.samples);
  result->stop = totals.stop;
  result->statistics_of = totals.statistics_of;
  if (result->samples == 0) return false;
  result->loss = totals.loss / totals.samples;
  result->top1 = totals.correct / totals.samples;
  size_t stream = 0;  // also on a rank that had no sample, and so no loss with a name
  for (const std::string& name : network_.LossNames()) {
    result->losses.emplace_back(name, totals.losses[stream++] / totals.samples);
  }
  return true;
}

// Brings all numbers of the step to the host in one transfer.
void TrainStep::Conclude(const Sums& sums, const at::Tensor& norm, StepResult* result) const {
  if (partners_.exchange != nullptr) {  // which has brought them all but this one
    if (!device_.is_meta()) result->grad_norm = norm.item<double>();
    return;
  }
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
