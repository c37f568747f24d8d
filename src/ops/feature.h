#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <utility>

namespace kinefit {

// A feature map on its way from one layer to the next.
struct Feature {
  at::Tensor value;
  // Computes the value again in the backward pass from what the layer keeps anyway, bit by bit the
  // same; empty: whoever needs the value then has to keep it. May be called until the backward pass
  // of the layer that made the feature has run.
  std::function<at::Tensor()> rebuild;
  // Another layer keeps the value until the backward pass of the layer that gets it here has run:
  // keeping it costs nothing, keeping it in another layout does.
  bool kept_anyway = false;
};

// The input of a layer as its backward pass will want it: kept, or to be rebuilt.
class KeptFeature {
 public:
  KeptFeature() = default;
  explicit KeptFeature(const Feature& feature) : rebuild_(feature.rebuild) {
    if (!rebuild_) kept_ = feature.value.detach();
  }
  at::Tensor Get() const { return rebuild_ ? rebuild_() : kept_; }

 private:
  at::Tensor kept_;
  std::function<at::Tensor()> rebuild_;
};

}  // namespace kinefit
