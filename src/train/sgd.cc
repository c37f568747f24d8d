#include "train/sgd.h"

#include "files/error.h"

namespace kinefit {

Sgd::Sgd(const OptimizerConfig& config, const std::vector<NamedTensor>& parameters)
    : Optimizer(config, parameters), momentum_(parameters.size()), fresh_(parameters.size()) {
  if (config.nesterov && config.momentum <= 0) {
    throw Error("Nesterov momentum needs a momentum above 0", "train.optimizer.nesterov",
                "set train.optimizer.momentum, for example to 0.9");
  }
}

void Sgd::Prepare() {
  if (config_.momentum == 0) return;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& gradient = parameters_[i].tensor.grad();
    if (!gradient.defined() || momentum_[i].defined() || fresh_[i].defined()) continue;
    fresh_[i] = at::empty_like(gradient);
  }
}

void Sgd::Step(double lr) {
  const at::NoGradGuard no_grad;
  Prepare();
  std::vector<size_t> active;
  std::vector<at::Tensor> values;
  std::vector<at::Tensor> gradients;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].tensor;
    if (!parameter.grad().defined()) continue;
    active.push_back(i);
    values.push_back(parameter);
    gradients.push_back(parameter.grad());
  }
  if (active.empty()) return;
  if (config_.weight_decay != 0) at::_foreach_add_(gradients, values, config_.weight_decay);
  if (config_.momentum == 0) {
    at::_foreach_add_(values, gradients, -lr);
    return;
  }
  UpdateMomentum(active, gradients);
  std::vector<at::Tensor> buffers;
  for (const size_t i : active) buffers.push_back(momentum_[i]);
  if (config_.nesterov) {
    at::_foreach_add_(gradients, buffers, config_.momentum);
    at::_foreach_add_(values, gradients, -lr);
  } else {
    at::_foreach_add_(values, buffers, -lr);
  }
}

void Sgd::UpdateMomentum(const std::vector<size_t>& active,
                         const std::vector<at::Tensor>& gradients) {
  std::vector<at::Tensor> buffers;
  std::vector<at::Tensor> increments;
  for (size_t k = 0; k < active.size(); ++k) {
    at::Tensor& buffer = momentum_[active[k]];
    if (buffer.defined()) {
      buffers.push_back(buffer);
      increments.push_back(gradients[k]);
    } else {
      buffer = std::move(fresh_[active[k]]);
      fresh_[active[k]] = at::Tensor();
      buffer.copy_(gradients[k]);
    }
  }
  if (buffers.empty()) return;
  at::_foreach_mul_(buffers, config_.momentum);
  at::_foreach_add_(buffers, increments, 1);
}

CheckpointDict Sgd::State() const {
  CheckpointDict state;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!momentum_[i].defined()) continue;
    state.emplace_back(parameters_[i].name, CheckpointDict{{"momentum_buffer", momentum_[i]}});
  }
  return state;
}

void Sgd::Load(const CheckpointDict& state, const std::string& where) {
  std::vector<at::Tensor> loaded(parameters_.size());
  for (const auto& [name, slots] : state) {
    const size_t index = IndexOf(name, where);
    loaded[index] = LoadSlot(slots, "momentum_buffer", index, where);
  }
  momentum_ = std::move(loaded);
}

CheckpointDict Sgd::Hyperparameters() const {
  return {{"momentum", config_.momentum},
          {"dampening", 0.0},
          {"weight_decay", config_.weight_decay},
          {"nesterov", config_.nesterov}};
}

}  // namespace kinefit
