#include "train/adamw.h"

#include <cmath>

namespace kinefit {

AdamW::AdamW(const OptimizerConfig& config, const std::vector<NamedTensor>& parameters)
    : Optimizer(config, parameters), moments_(parameters.size()) {}

void AdamW::Prepare() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].tensor;
    if (!parameter.grad().defined()) continue;
    Moments& moments = moments_[i];
    const auto zeros = [&] { return at::zeros_like(parameter.detach()); };
    if (!moments.first.defined()) moments.first = zeros();
    if (!moments.second.defined()) moments.second = zeros();
  }
}

void AdamW::Step(double lr) {
  const at::NoGradGuard no_grad;
  Prepare();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].tensor;
    const at::Tensor& gradient = parameter.grad();
    if (!gradient.defined()) continue;
    Moments& moments = moments_[i];
    ++moments.step;
    const auto t = static_cast<double>(moments.step);
    const double first_correction = 1 - std::pow(config_.beta1, t);
    const double second_correction = 1 - std::pow(config_.beta2, t);
    parameter.mul_(1 - lr * config_.weight_decay);
    moments.first.mul_(config_.beta1).add_(gradient, 1 - config_.beta1);
    moments.second.mul_(config_.beta2).addcmul_(gradient, gradient, 1 - config_.beta2);
    // The gradient has served; its memory takes the denominator.
    at::sqrt_out(const_cast<at::Tensor&>(gradient), moments.second);
    gradient.div_(std::sqrt(second_correction)).add_(config_.eps);
    parameter.addcdiv_(moments.first, gradient, -lr / first_correction);
  }
}

CheckpointDict AdamW::State() const {
  CheckpointDict state;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Moments& moments = moments_[i];
    if (moments.step == 0) continue;
    state.emplace_back(parameters_[i].name, CheckpointDict{{"step", moments.step},
                                                           {"exp_avg", moments.first},
                                                           {"exp_avg_sq", moments.second}});
  }
  return state;
}

void AdamW::Load(const CheckpointDict& state, const std::string& where) {
  std::vector<Moments> loaded(parameters_.size());
  for (const auto& [name, slots] : state) {
    const size_t index = IndexOf(name, where);
    Moments& moments = loaded[index];
    moments.first = LoadSlot(slots, "exp_avg", index, where);
    moments.second = LoadSlot(slots, "exp_avg_sq", index, where);
    const CheckpointValue* step = slots.Find("step");
    moments.step = step == nullptr ? 0 : step->AsInt(where + ": optimizer." + name + ".step");
  }
  moments_ = std::move(loaded);
}

CheckpointDict AdamW::Hyperparameters() const {
  return {{"betas", CheckpointList{config_.beta1, config_.beta2}},
          {"eps", config_.eps},
          {"weight_decay", config_.weight_decay},
          {"amsgrad", false}};
}

}  // namespace kinefit
