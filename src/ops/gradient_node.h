#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>

#include <vector>

namespace kinefit {

using Tensors = std::vector<at::Tensor>;

// A node of the autograd graph with one output whose state is our own, so that it can be given up
// piece by piece while the backward pass still runs. Differentiable once.
class GradientNode : public torch::autograd::Node {
 public:
  // For the engine.
  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) final;
  void release_variables() final;

 protected:
  // Gradients of the inputs given to Attach, in their order, from that of the output: contiguous,
  // in the output's dtype, and nobody else's, so it may be written to. Runs once.
  virtual Tensors Backward(at::Tensor grad) = 0;
  // Gives up whatever is kept for Backward. May be called more than once.
  virtual void Release() = 0;

 private:
  bool released_ = false;
};

// Whether autograd wants to know of an operation on `inputs`.
bool NeedsGradient(const Tensors& inputs);

// Makes `output` (fresh, not a view) what `node` computed from `inputs`. Takes ownership.
void Attach(GradientNode* node, const Tensors& inputs, at::Tensor& output);

}  // namespace kinefit
