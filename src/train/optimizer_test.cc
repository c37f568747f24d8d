#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "files/error.h"
#include "train/gradient_norm.h"

namespace kinefit {
namespace {

std::vector<NamedTensor> TwoParameters() {
  std::vector<NamedTensor> parameters = {
      {"p", at::tensor({1.0F, -2.0F, 3.0F})},
      {"q", at::tensor({0.5F, -0.25F, 2.0F, 4.0F}).reshape({2, 2})}};
  for (NamedTensor& parameter : parameters) parameter.tensor.set_requires_grad(true);
  return parameters;
}

void SetGradient(const NamedTensor& parameter, int64_t first) {
  std::vector<float> values;
  for (int64_t i = 0; i < parameter.tensor.numel(); ++i) {
    values.push_back(static_cast<float>(std::sin(static_cast<double>(first + i))));
  }
  parameter.tensor.mutable_grad() = at::tensor(values).reshape(parameter.tensor.sizes());
}

// Step k of the sequence that the expected numbers were made with; q has no gradient in step 2.
void StepOf(Optimizer& optimizer, int64_t k) {
  SetGradient(optimizer.parameters()[0], 10 * k);
  SetGradient(optimizer.parameters()[1], 10 + 10 * k);
  if (k == 2) optimizer.parameters()[1].tensor.mutable_grad() = at::Tensor();
  optimizer.Step(0.1 / static_cast<double>(k + 1));
}

at::Tensor Values(const Optimizer& optimizer) {
  return at::cat({optimizer.parameters()[0].tensor.detach(),
                  optimizer.parameters()[1].tensor.detach().flatten()})
      .clone();
}

OptimizerConfig ConfigOf(const std::string& type) {
  OptimizerConfig config;
  config.type = type;
  config.weight_decay = type == "sgd" ? 0.01 : 0.05;
  config.beta2 = 0.99;
  return config;
}

struct Case {
  const char* name;
  OptimizerConfig config;
  std::vector<float> want;  // torch 1.13, torch.optim
};

std::vector<Case> Cases() {
  std::vector<Case> cases = {
      {"momentum",
       ConfigOf("sgd"),
       {1.0197322368621826F, -2.086740016937256F, 2.8586409091949463F, 0.4883406460285187F,
        -0.15029336512088776F, 2.110224962234497F, 4.014139652252197F}},
      {"nesterov",
       ConfigOf("sgd"),
       {1.022004246711731F, -2.1219756603240967F, 2.8070571422576904F, 0.48380860686302185F,
        -0.11131445318460464F, 2.152405261993408F, 4.0181756019592285F}},
      {"plain",
       ConfigOf("sgd"),
       {1.0065680742263794F, -2.0487630367279053F, 2.9407389163970947F, 0.49537453055381775F,
        -0.20127275586128235F, 2.0572803020477295F, 4.01317024230957F}},
      {"adamw",
       ConfigOf("adamw"),
       {1.0218969583511353F, -2.0794456005096436F, 2.8438501358032227F, 0.5594472289085388F,
        -0.14737801253795624F, 2.136467695236206F, 3.902280330657959F}}};
  cases[1].config.nesterov = true;
  cases[2].config.momentum = 0;
  cases[2].config.weight_decay = 0;
  return cases;
}

TEST(Optimizer, StepsAsTorchDoes) {
  for (const Case& c : Cases()) {
    const auto optimizer = MakeOptimizer(c.config, TwoParameters());
    for (int64_t k = 0; k < 5; ++k) StepOf(*optimizer, k);
    EXPECT_TRUE(at::allclose(Values(*optimizer), at::tensor(c.want), 1e-6, 1e-7))
        << c.name << Values(*optimizer);
  }
}

TEST(Optimizer, ContinuesFromItsSavedStateBitForBit) {
  for (const Case& c : Cases()) {
    const auto whole = MakeOptimizer(c.config, TwoParameters());
    for (int64_t k = 0; k < 3; ++k) StepOf(*whole, k);
    std::vector<NamedTensor> copies;
    for (const NamedTensor& parameter : whole->parameters()) {
      copies.push_back({parameter.name, parameter.tensor.detach().clone().set_requires_grad(true)});
    }
    const auto resumed = MakeOptimizer(c.config, copies);
    resumed->Load(whole->State(), "test");
    for (int64_t k = 3; k < 5; ++k) {
      StepOf(*whole, k);
      StepOf(*resumed, k);
    }
    EXPECT_TRUE(at::equal(Values(*whole), Values(*resumed))) << c.name;
  }
}

TEST(Optimizer, RefusesStateOfAnotherNetwork) {
  const auto optimizer = MakeOptimizer(ConfigOf("sgd"), TwoParameters());
  EXPECT_THROW(
      optimizer->Load({{"other", CheckpointDict{{"momentum_buffer", at::zeros({3})}}}}, "f.pth"),
      Error);
  EXPECT_THROW(
      optimizer->Load({{"p", CheckpointDict{{"momentum_buffer", at::zeros({4})}}}}, "f.pth"),
      Error);
  EXPECT_THROW(optimizer->Load({{"p", CheckpointDict{{"step", 1}}}}, "f.pth"), Error);
}

TEST(Optimizer, RefusesBadConfigurations) {
  OptimizerConfig config = ConfigOf("adam");
  EXPECT_THROW(MakeOptimizer(config, TwoParameters()), Error);
  config = ConfigOf("sgd");
  config.nesterov = true;
  config.momentum = 0;
  EXPECT_THROW(MakeOptimizer(config, TwoParameters()), Error);
}

TEST(GradientNorm, ClipsAsTorchDoes) {
  std::vector<NamedTensor> parameters = {{"p", at::zeros({3}).set_requires_grad(true)}};
  parameters[0].tensor.mutable_grad() = at::tensor({3.0F, 4.0F, 12.0F});
  const auto gradients = Gradients(parameters);
  const double norm = GradientNorm(gradients).item<double>();
  EXPECT_EQ(norm, 13);
  ClipGradients(gradients, norm, 20);  // within the limit: untouched
  EXPECT_TRUE(at::equal(gradients[0], at::tensor({3.0F, 4.0F, 12.0F})));
  ClipGradients(gradients, norm, 2);
  EXPECT_TRUE(at::allclose(
      gradients[0], at::tensor({0.4615384340286255F, 0.615384578704834F, 1.846153736114502F}), 1e-6,
      0));
}

}  // namespace
}  // namespace kinefit
