#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "files/error.h"

namespace kinefit {
namespace {

constexpr double kPi = 3.14159265358979323846;

void ConvertToIterations(ScheduleConfig& rule, int64_t steps_per_epoch) {
  rule.begin *= steps_per_epoch;
  rule.end *= steps_per_epoch;
  if (rule.t_max > 0) rule.t_max *= steps_per_epoch;
  for (int64_t& milestone : rule.milestones) milestone *= steps_per_epoch;
}

void Check(const ScheduleConfig& rule, const std::string& where) {
  if (rule.end <= rule.begin) {
    throw Error("the range of this schedule is empty: it begins at " + std::to_string(rule.begin) +
                    " and ends at " + std::to_string(rule.end),
                where, "begin before the end of training, or train longer (train.epochs)");
  }
  if (rule.type == "linear" && (rule.start_factor <= 0 || rule.start_factor > 1)) {
    throw Error("start_factor must be above 0 and at most 1", where,
                "0 cannot be multiplied up again: use a small number such as 0.001");
  }
  if (rule.type == "constant" && (rule.factor <= 0 || rule.factor > 1)) {
    throw Error("factor must be above 0 and at most 1", where, "");
  }
  if (rule.type != "multistep" && rule.type != "cosine" && rule.type != "linear" &&
      rule.type != "constant") {
    throw Error("unknown schedule \"" + rule.type + "\"", where,
                "use \"multistep\", \"cosine\", \"linear\" or \"constant\"");
  }
}

}  // namespace

LearningRate::LearningRate(const std::vector<ScheduleConfig>& rules, double base_lr,
                           const TrainLength& length)
    : base_lr_(base_lr), length_(length) {
  for (size_t i = 0; i < rules.size(); ++i) {
    Rule rule;
    rule.config = rules[i];
    rule.by_epoch = rules[i].by_epoch && !rules[i].per_iteration;
    if (rule.config.end < 0) {
      rule.config.end = rules[i].by_epoch ? length.epochs : length.total_iterations;
    }
    if (rules[i].by_epoch && rules[i].per_iteration) {
      ConvertToIterations(rule.config, length.steps_per_epoch);
    }
    if (rule.config.t_max <= 0) rule.config.t_max = rule.config.end - rule.config.begin;
    Check(rule.config, "train.schedule[" + std::to_string(i) + "]");
    rules_.push_back(rule);
  }
  Restart();
}

void LearningRate::Restart() {
  iteration_ = 0;
  value_ = base_lr_;
  for (Rule& rule : rules_) {
    rule.last_step = -1;
    rule.global_step = -1;
    StepRule(rule);
  }
}

double LearningRate::At(int64_t iteration) {
  if (iteration < iteration_) Restart();
  while (iteration_ < iteration) {
    ++iteration_;
    for (Rule& rule : rules_) {
      if (!rule.by_epoch) StepRule(rule);
    }
    if (iteration_ % length_.steps_per_epoch != 0) continue;
    for (Rule& rule : rules_) {
      if (rule.by_epoch) StepRule(rule);
    }
  }
  return value_;
}

void LearningRate::StepRule(Rule& rule) {
  ++rule.global_step;
  if (rule.global_step < rule.config.begin || rule.global_step >= rule.config.end) return;
  ++rule.last_step;
  value_ = Next(rule);
}

// mmengine's _get_value of each scheduler.
double LearningRate::Next(const Rule& rule) const {
  const ScheduleConfig& config = rule.config;
  const int64_t step = rule.last_step;
  const int64_t last = config.end - config.begin - 1;  // mmengine's total_iters
  if (config.type == "multistep") {
    const auto hits = std::count(config.milestones.begin(), config.milestones.end(), step);
    return value_ * std::pow(config.gamma, static_cast<double>(hits));
  }
  if (config.type == "constant") {
    if (step == 0) return value_ * config.factor;
    return step == last ? value_ * (1.0 / config.factor) : value_;
  }
  if (config.type == "linear") {
    if (step == 0) return value_ * config.start_factor;
    const double rise = config.end_factor - config.start_factor;
    return value_ * (1.0 + rise / (static_cast<double>(last) * config.start_factor +
                                   static_cast<double>(step - 1) * rise));
  }
  if (step == 0) return value_;
  const auto t_max = static_cast<double>(config.t_max);
  if ((step - 1 - config.t_max) % (2 * config.t_max) == 0) {
    return value_ + (base_lr_ - config.eta_min) * (1 - std::cos(kPi / t_max)) / 2;
  }
  return (1 + std::cos(kPi * static_cast<double>(step) / t_max)) /
             (1 + std::cos(kPi * static_cast<double>(step - 1) / t_max)) *
             (value_ - config.eta_min) +
         config.eta_min;
}

CheckpointList LearningRate::State(int64_t iteration) {
  const double lr = At(iteration);
  CheckpointList state;
  for (const Rule& rule : rules_) {
    state.emplace_back(CheckpointDict{{"type", rule.config.type},
                                      {"param_name", "lr"},
                                      {"by_epoch", rule.by_epoch},
                                      {"begin", rule.config.begin},
                                      {"end", rule.config.end},
                                      {"base_values", CheckpointList{base_lr_}},
                                      {"last_step", rule.last_step},
                                      {"_global_step", rule.global_step},
                                      {"_last_value", CheckpointList{lr}}});
  }
  return state;
}

}  // namespace kinefit
