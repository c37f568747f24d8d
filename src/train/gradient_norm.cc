#include "train/gradient_norm.h"

namespace kinefit {

std::vector<at::Tensor> Gradients(const std::vector<NamedTensor>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const NamedTensor& parameter : parameters) {
    if (parameter.tensor.grad().defined()) gradients.push_back(parameter.tensor.grad());
  }
  return gradients;
}

at::Tensor GradientNorm(const std::vector<at::Tensor>& gradients) {
  const at::NoGradGuard no_grad;
  if (gradients.empty()) return at::zeros({});
  return at::norm(at::stack(at::_foreach_norm(gradients, 2)), 2);
}

void ClipGradients(const std::vector<at::Tensor>& gradients, double norm, double max_norm) {
  const at::NoGradGuard no_grad;
  // In float, as the reference's coefficient is a float32 tensor.
  const float scale =
      static_cast<float>(max_norm) / (static_cast<float>(norm) + static_cast<float>(1e-6));
  if (scale < 1 && !gradients.empty()) at::_foreach_mul_(gradients, scale);
}

}  // namespace kinefit
