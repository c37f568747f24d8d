#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "model/network.h"

namespace kinefit {

// The gradients of `parameters` that are defined.
std::vector<at::Tensor> Gradients(const std::vector<NamedTensor>& parameters);

// L2 norm of all gradients taken together, as torch.nn.utils.clip_grad_norm_ computes it (norm of
// the tensors' norms): a scalar tensor on the gradients' device. 0 if there are none.
at::Tensor GradientNorm(const std::vector<at::Tensor>& gradients);

// Multiplies the gradients by min(1, max_norm / (norm + 1e-6)), as clip_grad_norm_ does.
void ClipGradients(const std::vector<at::Tensor>& gradients, double norm, double max_norm);

}  // namespace kinefit
