#include "train/step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "files/error.h"
#include "train/ema.h"
#include "train/linear_network_test.h"

namespace kinefit {
namespace {

constexpr int64_t kInputs = 6;
constexpr int64_t kClasses = 3;

Config TestConfig(int64_t batch_size, int64_t accumulate) {
  Config config;
  config.train.batch_size = batch_size;
  config.train.accumulate = accumulate;
  config.train.optimizer.lr = 0.5;
  return config;
}

// `n` samples, the first numbered `first`.
Batch MakeBatch(int64_t first, int64_t n) {
  Batch batch;
  batch.heatmap_imgs = at::empty({n, 1, 1, 1, kInputs});
  batch.labels = at::empty({n}, at::kLong);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < kInputs; ++k) {
      batch.heatmap_imgs[i][0][0][0][k] = std::sin(static_cast<double>((first + i) * 7 + k));
    }
    batch.labels[i] = (first + i) % kClasses;
    batch.ids.push_back("sample" + std::to_string(first + i));
  }
  return batch;
}

std::function<bool(Batch*)> Deal(std::vector<Batch> batches) {
  auto next = std::make_shared<size_t>(0);
  return [batches = std::move(batches), next](Batch* batch) {
    if (*next == batches.size()) return false;
    *batch = batches[(*next)++];
    return true;
  };
}

struct Outcome {
  StepResult result;
  at::Tensor weight;
};

Outcome RunOnce(const Config& config, std::vector<Batch> batches) {
  LinearNetwork network(kInputs, kClasses);
  network.Train(true);
  const auto optimizer = MakeOptimizer(config.train.optimizer, network.parameters());
  TrainStep step(network, config, *optimizer, nullptr);
  StepResult result = step.Run(0, 0.5, Deal(std::move(batches)));
  return {result, network.Weight().clone()};
}

void ExpectSame(const Outcome& a, const Outcome& b) {
  EXPECT_TRUE(at::allclose(a.weight, b.weight, 1e-5, 1e-6)) << a.weight << b.weight;
  EXPECT_NEAR(a.result.loss, b.result.loss, 1e-6);
  EXPECT_NEAR(a.result.grad_norm, b.result.grad_norm, 1e-5);
  EXPECT_EQ(a.result.top1, b.result.top1);
  EXPECT_EQ(a.result.samples, b.result.samples);
}

TEST(TrainStep, TwoTimesFourEqualsEight) {
  const Outcome whole = RunOnce(TestConfig(8, 1), {MakeBatch(0, 8)});
  const Outcome halves = RunOnce(TestConfig(4, 2), {MakeBatch(0, 4), MakeBatch(4, 4)});
  ExpectSame(whole, halves);
  EXPECT_EQ(halves.result.ids.size(), 8U);
  EXPECT_EQ(halves.result.ids[7], "sample7");
  EXPECT_FALSE(at::allclose(whole.weight, LinearNetwork(kInputs, kClasses).Weight()));
}

TEST(TrainStep, ShortGroupsTakeTheMeanOverTheirSamples) {
  const Outcome whole = RunOnce(TestConfig(6, 1), {MakeBatch(0, 6)});
  // Two of three micro-batches, one of them short; one micro-batch that bad clips made short.
  ExpectSame(whole, RunOnce(TestConfig(4, 3), {MakeBatch(0, 4), MakeBatch(4, 2)}));
  ExpectSame(whole, RunOnce(TestConfig(8, 1), {MakeBatch(0, 6)}));
}

TEST(TrainStep, WithoutSamplesNothingChanges) {
  const Outcome outcome = RunOnce(TestConfig(4, 2), {});
  EXPECT_EQ(outcome.result.samples, 0);
  EXPECT_TRUE(at::equal(outcome.weight, LinearNetwork(kInputs, kClasses).Weight()));
}

TEST(TrainStep, ClipsTheNormItReports) {
  Config config = TestConfig(6, 1);
  config.train.optimizer.momentum = 0;
  config.train.optimizer.weight_decay = 0;
  config.train.optimizer.clip_norm = 0.01;
  const Outcome outcome = RunOnce(config, {MakeBatch(0, 6)});
  EXPECT_GT(outcome.result.grad_norm, 0.05);
  const at::Tensor moved = outcome.weight - LinearNetwork(kInputs, kClasses).Weight();
  EXPECT_LE(moved.norm().item<double>(), 0.5 * 0.01 * 1.001);
}

TEST(TrainStep, NanLeavesEverythingUntouched) {
  const Config config = TestConfig(4, 2);
  LinearNetwork network(kInputs, kClasses);
  network.Train(true);
  const auto optimizer = MakeOptimizer(config.train.optimizer, network.parameters());
  TrainStep step(network, config, *optimizer, nullptr);
  ASSERT_TRUE(step.Run(0, 0.5, Deal({MakeBatch(0, 4)})).finite);
  const at::Tensor weight = network.Weight().clone();
  const at::Tensor mean = network.Mean().clone();
  const at::Tensor momentum =
      optimizer->State()[0].second.Find("momentum_buffer")->AsTensor("").clone();

  Batch bad = MakeBatch(4, 4);
  bad.heatmap_imgs[2][0][0][0][1] = std::numeric_limits<float>::quiet_NaN();
  const StepResult result = step.Run(1, 0.5, Deal({MakeBatch(0, 4), bad}));
  EXPECT_FALSE(result.finite);
  EXPECT_FALSE(std::isfinite(result.loss));
  EXPECT_EQ(result.ids.size(), 8U);
  EXPECT_TRUE(at::equal(network.Weight(), weight));
  EXPECT_TRUE(at::equal(network.Mean(), mean));
  EXPECT_TRUE(
      at::equal(optimizer->State()[0].second.Find("momentum_buffer")->AsTensor(""), momentum));
  EXPECT_TRUE(step.Run(2, 0.5, Deal({MakeBatch(0, 4)})).finite);
}

// As cuBLAS does on a GPU that has none to give.
TEST(TrainStep, ALibraryWithoutMemoryIsOutOfMemory) {
  const Config config = TestConfig(4, 2);
  LinearNetwork network(kInputs, kClasses);
  network.Train(true);
  const at::Tensor mean = network.Mean().clone();
  const auto optimizer = MakeOptimizer(config.train.optimizer, network.parameters());
  TrainStep step(network, config, *optimizer, nullptr);
  const auto deal = Deal({MakeBatch(0, 4)});
  EXPECT_THROW(step.Run(0, 0.5,
                        [&](Batch* batch) {
                          if (deal(batch)) return true;
                          TORCH_CHECK(false,
                                      "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling "
                                      "`cublasCreate(handle)`");
                        }),
               c10::OutOfMemoryError);
  EXPECT_TRUE(at::equal(network.Mean(), mean));
  EXPECT_TRUE(at::equal(network.Weight(), LinearNetwork(kInputs, kClasses).Weight()));
}

TEST(TrainStep, Bf16StaysCloseToFloat) {
  Config config = TestConfig(6, 1);
  const Outcome exact = RunOnce(config, {MakeBatch(0, 6)});
  config.train.precision = "bf16";
  const Outcome rounded = RunOnce(config, {MakeBatch(0, 6)});
  EXPECT_FALSE(at::equal(exact.weight, rounded.weight));
  EXPECT_TRUE(at::allclose(exact.weight, rounded.weight, 0, 0.02));
  EXPECT_EQ(rounded.weight.scalar_type(), at::kFloat);
}

TEST(TrainStep, Fp16NeedsAGpu) {
  Config config = TestConfig(6, 1);
  config.train.precision = "fp16";
  EXPECT_THROW(RunOnce(config, {MakeBatch(0, 6)}), Error);
}

TEST(Ema, FollowsItsFormulaAndSwaps) {
  LinearNetwork network(kInputs, kClasses);
  Ema ema(network, 0.25);
  const at::Tensor first = network.Weight().clone();
  ema.Update();  // the first one copies
  {
    const at::NoGradGuard no_grad;
    at::Tensor weight = network.Weight();
    weight.add_(1);
  }
  const at::Tensor second = network.Weight().clone();
  ema.Update();
  const at::Tensor want = first * 0.75 + second * 0.25;
  {
    const EmaWeightsInUse in_use(&ema);
    EXPECT_TRUE(at::allclose(network.Weight(), want, 1e-6, 1e-7));
  }
  EXPECT_TRUE(at::equal(network.Weight(), second));

  LinearNetwork other(kInputs, kClasses);
  Ema restored(other, 0.25);
  restored.Load(ema.State(), "test");
  const EmaWeightsInUse in_use(&restored);
  EXPECT_TRUE(at::allclose(other.Weight(), want, 1e-6, 1e-7));
}

TEST(LossScaler, HalvesOnOverflowAndGrowsAfterGoodSteps) {
  LossScaler scaler;
  EXPECT_EQ(scaler.scale(), 65536);
  scaler.Update(true);
  EXPECT_EQ(scaler.scale(), 32768);
  for (int i = 0; i < 1999; ++i) scaler.Update(false);
  LossScaler restored;
  restored.Load(scaler.State(), "test");
  restored.Update(false);
  EXPECT_EQ(restored.scale(), 65536);
  for (int i = 0; i < 20; ++i) restored.Update(true);
  EXPECT_TRUE(restored.exhausted());
}

}  // namespace
}  // namespace kinefit
