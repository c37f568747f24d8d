#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "model/network.h"
#include "model/recompute.h"
#include "ops/conv_norm.h"
#include "ops/feature.h"
#include "random/stream.h"

namespace kinefit {

// One row of `kinefit model describe`.
struct LayerRecord {
  std::string name;             // prefix of its tensors' names, or "…maxpool"
  std::string kind;             // "conv 3x1x1 + bn + relu", ...
  std::vector<int64_t> output;  // shape
  int64_t parameters = 0;
  int64_t macs = 0;              // multiply-accumulates of convolutions, products and classifiers
  int64_t activation_bytes = 0;  // tensors it writes in training (BN writes its own; ReLU in place)
};

// Collects the layers of one Forward in the order in which they run.
class LayerTrace {
 public:
  void Record(LayerRecord record) { records_.push_back(std::move(record)); }
  const std::vector<LayerRecord>& records() const { return records_; }

 private:
  std::vector<LayerRecord> records_;
};

// What every module's Forward is told about the pass it is part of.
struct ForwardContext {
  bool training;
  RandomStream& random;
  LayerTrace* trace;  // nullptr unless only shapes are followed
  const Recompute& recompute;
  BatchShare share = {};

  BatchNormMode norm() const {
    return {training, kBatchNormMomentum, kBatchNormEpsilon, training ? share.sum : nullptr};
  }
  static constexpr double kBatchNormMomentum = 0.1;
  static constexpr double kBatchNormEpsilon = 1e-5;
};

// Makes a network's tensors as its modules are constructed; the order of calls is the order of the
// state dict. Parameters are left uninitialised and require gradients.
class TensorMaker {
 public:
  // `tensors` must outlive the maker.
  TensorMaker(const at::TensorOptions& options, NetworkTensors* tensors)
      : options_(options), tensors_(tensors) {}

  at::Tensor Parameter(const std::string& name, at::IntArrayRef shape, Initial initial,
                       double bound = 0);
  // Filled with `value`; int64 if `integer`.
  at::Tensor Buffer(const std::string& name, at::IntArrayRef shape, double value,
                    bool integer = false);

 private:
  at::TensorOptions options_;
  NetworkTensors* tensors_;
};

// Geometry of a convolution, in order time, height, width.
struct ConvShape {
  std::array<int64_t, 3> kernel = {1, 1, 1};
  std::array<int64_t, 3> stride = {1, 1, 1};
  std::array<int64_t, 3> padding = {0, 0, 0};
  bool transposed = false;
  std::array<int64_t, 3> output_padding = {0, 0, 0};  // transposed only
};

// What follows the convolution of a ConvUnit.
enum class After { kNothing, kBatchNorm, kZeroBatchNorm, kBatchNormRelu };

// A convolution without bias, then batch norm (momentum 0.1, epsilon 1e-5), then ReLU: mmcv's
// ConvModule (and mmaction2's DeConvModule when transposed), with its names "conv.weight",
// "bn.weight", ... kZeroBatchNorm is a batch norm whose scale starts at zero.
class ConvUnit {
 public:
  ConvUnit(TensorMaker& maker, const std::string& name, int64_t in_channels, int64_t out_channels,
           const ConvShape& shape, After after);
  // [N, in, T, H, W] -> [N, out, T', H', W'], keeping the convolution's output for the backward
  // pass unless `keep_output` is false.
  Feature Forward(const Feature& x, const ForwardContext& context, bool keep_output = true) const;
  // For operations that join several convolutions into one.
  const ConvNorm& layer() const { return layer_; }

 private:
  bool has_norm() const { return layer_.bn.gamma.defined(); }
  // The plain composition of ATen operations.
  at::Tensor Compose(const at::Tensor& x, const ForwardContext& context) const;
  at::Tensor Follow(const at::Tensor& x, LayerTrace* trace) const;

  ConvNorm layer_;
  bool relu_;
};

// x [..., in] -> [..., out], without dependence on how many rows there are.
at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// Dropout, then a fully connected layer: [N, in] -> [N, classes].
class Classifier {
 public:
  Classifier(TensorMaker& maker, const std::string& name, int64_t in_features, int64_t classes,
             double dropout);
  at::Tensor Forward(const at::Tensor& x, const ForwardContext& context) const;

 private:
  std::string name_;
  double dropout_;
  at::Tensor weight_;
  at::Tensor bias_;
};

// Max pool 1x3x3 with padding (0, 1, 1): [N, C, T, H, W] -> [N, C, T', H', W'].
// The input is not kept; the output can be rebuilt where the input can.
Feature MaxPool(const Feature& x, int64_t stride_t, int64_t stride_s, const std::string& name,
                const ForwardContext& context);

// Throws Error unless x is [N, channels, T, H, W], or bytes of [N, T, H, W, channels].
void CheckInput(const at::Tensor& x, int64_t channels, const char* name);

// [N, C, T, H, W] -> [N, C], float32 whatever the dtype (double for double).
at::Tensor AveragePool(const at::Tensor& x);

}  // namespace kinefit
