#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "model/recompute.h"
#include "ops/batch_norm.h"
#include "ops/stem_input.h"
#include "random/stream.h"

namespace kinefit {

// A tensor of the network under its checkpoint name (mmaction2's, e.g.
// "backbone.rgb_path.layer3.0.conv1.conv.weight").
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

struct NetworkInput {
  at::Tensor imgs;          // [N, 3, T, H, W], undefined for pose-only networks
  at::Tensor heatmap_imgs;  // [N, C, T, H, W], undefined for RGB-only networks
};

// Logits per stream, [N, classes], in this order as far as they exist: "rgb", "pose", "fused".
struct NetworkOutput {
  std::vector<std::pair<std::string, at::Tensor>> logits;
  // Of the coarse classes, [N, groups]: "rgb_coarse", "pose_coarse" (PCAN).
  std::vector<std::pair<std::string, at::Tensor>> coarse;
  at::Tensor feature_rgb;  // backbone output [N, C, T, H, W], undefined if absent
  at::Tensor feature_pose;
  // In training, what PCAN's prototypes are compared with: [N, C] of each stream.
  at::Tensor highest_rgb;
  at::Tensor highest_pose;
  const at::Tensor& at(const std::string& stream) const;  // throws Error if absent
};

// How InitialiseNetwork fills a parameter.
enum class Initial {
  kKaimingNormal,  // normal, std sqrt(2 / fan out): convolutions
  kUniform,        // +-1 / sqrt(fan in): transposed convolutions, which the reference leaves at
                   // PyTorch's default
  kOnes,
  kZeros,
  kHeadNormal,  // normal, std HeadConfig.init_std
  kBounded,     // uniform within the parameter's bound: PyTorch's default for biases and linear
                // layers
};

struct Loss {
  at::Tensor total;                                       // scalar, weighted sum
  std::vector<std::pair<std::string, at::Tensor>> parts;  // weighted, scalars
};

// The tensors of a network in mmaction2's order, filled while its modules are made.
struct NetworkTensors {
  std::vector<NamedTensor> parameters;
  std::vector<Initial> initial;  // of each parameter
  std::vector<double> bounds;    // of each parameter, where it is kBounded
  std::vector<NamedTensor> buffers;
  std::vector<NamedTensor> all;  // parameters and buffers, interleaved as in a state dict
};

class LayerTrace;  // model/layers.h

// What a training forward pass has to know if its input is one part of a batch that other processes
// hold the rest of.
struct BatchShare {
  const SumOverRanks* sum = nullptr;  // null: batch norms see this part alone. Not owned
  int64_t first_row = 0;              // the input's first row within the batch: dropout masks are
                                      // those of the whole batch
};

// A recogniser: backbone(s) + head. Parameters and buffers live on the device and in the dtype of
// the TensorOptions it was made with (the meta device included). Not thread-safe.
class Network {
 public:
  virtual ~Network() = default;

  // `random` is drawn from only in training (dropout, drop path); pass the step's own stream so
  // that a repeated step repeats its masks.
  virtual NetworkOutput Forward(const NetworkInput& input, RandomStream& random) = 0;

  // The loss of a training pass over samples with these labels [N], with its weights. Where the
  // network keeps running means of what it is shown (PCAN's prototypes), they move.
  virtual Loss LossOf(const NetworkOutput& output, const at::Tensor& labels) = 0;
  // The names of the loss's parts, in their order.
  virtual std::vector<std::string> LossNames() const = 0;

  // Whether it keeps prototypes: of several processes each moves its own by what it sees.
  virtual bool HasPrototypes() const { return false; }

  const std::vector<NamedTensor>& parameters() const { return tensors_.parameters; }  // need grad
  const std::vector<NamedTensor>& buffers() const { return tensors_.buffers; }  // BN statistics
  // Parameters and buffers in mmaction2's order.
  std::vector<NamedTensor> StateDict() const { return tensors_.all; }

  bool training() const { return training_; }
  void Train(bool on) { training_ = on; }

  // What is kept between forward and backward; Recompute() at first. Changes no result but for
  // rounding where `plain` changes.
  void SetRecompute(const Recompute& recompute) { recompute_ = recompute; }
  const Recompute& recompute() const { return recompute_; }
  // The parts that Recompute can name.
  virtual std::vector<std::string> Segments() const { return {}; }

  void SetBatchShare(const BatchShare& share) { share_ = share; }

  // What the backbone computes in: kFloat, or kBFloat16 / kHalf for mixed precision, where weights,
  // statistics, heads and gradients of weights stay float32.
  void SetComputeType(at::ScalarType type) { compute_type_ = type; }

  // While a trace is set, Forward only follows shapes: it writes one row per layer to the trace and
  // returns tensors without meaning. Meta device only. Not owned; nullptr ends it.
  void SetTrace(LayerTrace* trace) { trace_ = trace; }

 protected:
  NetworkTensors tensors_;
  bool training_ = false;
  LayerTrace* trace_ = nullptr;
  Recompute recompute_;
  at::ScalarType compute_type_ = at::kFloat;
  BatchShare share_;

  // `input` in the compute type, as a stem takes it; float64 networks stay what they are.
  at::Tensor Cast(const at::Tensor& input) const { return StemInput(input, compute_type_); }

 private:
  friend void InitialiseNetwork(Network& network, const ModelConfig& config, uint64_t seed);
};

// Whether checkpoints of the published code lack this tensor of ours: coarse prototypes.
bool MayBeMissing(const std::string& name);

// Builds config.type with uninitialised parameters on `options.device()`. Throws Error for a
// configuration that makes no network (mismatched lists, indivisible widths, ...).
std::unique_ptr<Network> MakeNetwork(const ModelConfig& config, const at::TensorOptions& options);

// Initialises as the reference does: kaiming normal fan-out for convolutions, BN 1/0 (the last of
// each bottleneck 0), normal(0, init_std) heads, attention gates 0. A function of the seed and the
// parameter's name alone.
void InitialiseNetwork(Network& network, const ModelConfig& config, uint64_t seed);

}  // namespace kinefit
