// What has to hold on a GPU: the reference's numbers, the same bits again after a kill, the peak
// that was planned, all or nothing where memory runs out, NCCL. Skipped where there is no GPU.

#include "memory/gpu.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/load.h"
#include "files/npy.h"
#include "memory/cuda_constants.h"
#include "model/describe.h"
#include "model/loss.h"
#include "model/network.h"
#include "tests/parity_fixtures.h"
#include "tests/process.h"
#include "train/optimizer.h"
#include "train/step.h"
#include "train/step_rehearsal.h"

#ifdef KINEFIT_CUDA
#include <c10/cuda/CUDACachingAllocator.h>

#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "distributed/gradient_buckets.h"
#include "distributed/process_group.h"
#endif

namespace kinefit::testing {
namespace {

constexpr const char* kGpu = "cuda:0";

class Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "no GPU, or a build without CUDA";
    at::empty({0}, at::TensorOptions().device(UseDevice(kGpu)));  // makes CUDA's allocator ready
  }
};

at::TensorOptions OnGpu() { return at::TensorOptions().device(c10::Device(kGpu)); }

// ---- Numbers.

// With float32 throughout (see main) only the order of sums differs from the CPU's.
TEST_F(Gpu, AgreesWithTheReference) {
  if (!std::filesystem::exists(kFixtures + "README.md")) GTEST_SKIP() << "no " << kFixtures;
  NpzArrays io = ReadNpz(kFixtures + "rgbpose_tiny_io.npz");
  for (const char* recompute : {"none", "lean", "full"}) {
    const auto network = TinyNetwork("rgbpose_tiny.pth", OnGpu().dtype(at::kFloat));
    network->SetRecompute(ParseRecompute(recompute, network->Segments(), ""));
    const NetworkInput input = {ToTensor(io.at("imgs")).to(kGpu),
                                ToTensor(io.at("heatmap_imgs")).to(kGpu)};
    RandomStream random(1, "parity");
    {
      const at::NoGradGuard no_grad;
      network->Train(false);
      const NetworkOutput output = network->Forward(input, random);
      EXPECT_LT(RelativeError(output.at("rgb"), ToTensor(io.at("eval_logits_rgb"))), 1e-5);
      EXPECT_LT(RelativeError(output.at("pose"), ToTensor(io.at("eval_logits_pose"))), 1e-5);
    }
    network->Train(true);
    const NetworkOutput output = network->Forward(input, random);
    EXPECT_LT(RelativeError(output.at("rgb"), ToTensor(io.at("train_logits_rgb"))), 1e-5);
    EXPECT_LT(RelativeError(output.at("pose"), ToTensor(io.at("train_logits_pose"))), 1e-5);
  }
}

// In float64, where no ReLU switches for a rounding error.
TEST_F(Gpu, HasTheGradientsOfTheCpu) {
  if (!std::filesystem::exists(kFixtures + "README.md")) GTEST_SKIP() << "no " << kFixtures;
  NpzArrays io = ReadNpz(kFixtures + "rgbpose_tiny_io.npz");
  const auto run = [&](const at::Device& device, const char* recompute) {
    auto network =
        TinyNetwork("rgbpose_tiny.pth", at::TensorOptions().device(device).dtype(at::kDouble));
    network->SetRecompute(ParseRecompute(recompute, network->Segments(), ""));
    network->Train(true);
    RandomStream random(1, "parity");
    const NetworkOutput output =
        network->Forward({ToTensor(io.at("imgs")).to(device, at::kDouble),
                          ToTensor(io.at("heatmap_imgs")).to(device, at::kDouble)},
                         random);
    ComputeLoss(output, ToTensor(io.at("labels")).to(device), TinyConfig().head).total.backward();
    return network;
  };
  const auto cpu = run(at::kCPU, "none");
  for (const char* recompute : {"none", "lean", "full"}) {
    const auto gpu = run(c10::Device(kGpu), recompute);
    double worst = 0;
    for (size_t i = 0; i < cpu->parameters().size(); ++i) {
      const auto& [name, parameter] = cpu->parameters()[i];
      const double error = RelativeError(gpu->parameters()[i].tensor.grad(), parameter.grad());
      EXPECT_LT(error, 1e-9) << name << " " << recompute;
      worst = std::max(worst, error);
    }
    for (size_t i = 0; i < cpu->buffers().size(); ++i) {
      if (cpu->buffers()[i].tensor.scalar_type() != at::kDouble) continue;
      EXPECT_LT(RelativeError(gpu->buffers()[i].tensor, cpu->buffers()[i].tensor), 1e-9)
          << cpu->buffers()[i].name << " " << recompute;
    }
    std::printf("%s: worst gradient %.1e of the largest\n", recompute, worst);
  }
}

// ---- Real processes.

class GpuRun : public Gpu {
 protected:
  std::vector<std::string> Train(const std::string& work_dir,
                                 const std::vector<std::string>& settings) const {
    std::vector<std::string> arguments = {"train",      scratch_ / "config.toml",
                                          "--work-dir", scratch_ / work_dir,
                                          "--set",      "device=cuda"};
    for (const std::string& setting : settings) {
      arguments.insert(arguments.end(), {"--set", setting});
    }
    return arguments;
  }
  void Finish(const std::string& work_dir, const std::vector<std::string>& settings) const {
    const Outcome outcome = Kinefit(Train(work_dir, settings));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }

  ScratchFolder scratch_;
};

TEST_F(GpuRun, EndsWithTheSameBitsAgainAndAfterAKill) {
  for (const std::string precision : {"fp32", "bf16"}) {
    WriteText(scratch_ / "config.toml", SmallConfig("rgbpose_attention"));
    const std::vector<std::string> settings = {"threads=2",
                                               "train.epochs=20",
                                               "train.val_every=10",
                                               "train.ema=true",
                                               "train.precision=\"" + precision + "\"",
                                               "data.heatmap.draw_on=\"device\""};
    const std::string whole = "whole_" + precision;
    const std::string killed = "killed_" + precision;
    Finish(whole, settings);
    std::vector<std::string> command = Train(killed, settings);
    command.insert(command.begin(), KinefitBinary());
    Process process(command, scratch_ / "killed.txt");
    const std::string log = scratch_ / (killed + "/log.jsonl");
    while (!std::filesystem::exists(log) || CountOf("\"event\":\"step\"", ReadText(log)) < 7) {
      ASSERT_FALSE(process.WaitFor(std::chrono::milliseconds(1)))
          << ReadText(scratch_ / "killed.txt");
    }
    process.Signal(SIGKILL);
    process.Wait();
    Finish(killed, settings);
    EXPECT_TRUE(SameTensors(scratch_ / (whole + "/last.pth"), scratch_ / (killed + "/last.pth")));
  }
}

// ---- Memory.

#ifdef KINEFIT_CUDA

namespace cache = c10::cuda::CUDACachingAllocator;

// A training step of a configuration on the GPU, on clips of noise.
class StepOnGpu {
 public:
  explicit StepOnGpu(const Config& config) : config_(config) {
    config_.device = "cuda";
    network_ = MakeNetwork(config_.model, OnGpu().dtype(at::kFloat));
    InitialiseNetwork(*network_, config_.model, 3);
    network_->Train(true);
    network_->SetRecompute(
        ParseRecompute(config_.memory.recompute, network_->Segments(), "memory.recompute"));
    optimizer_ = MakeOptimizer(config_.train.optimizer, network_->parameters());
    step_ = std::make_unique<TrainStep>(*network_, config_, *optimizer_, nullptr);
    const int64_t clips = config_.train.batch_size;
    const NetworkInput like = TrainingInputOnMeta(config_, clips);
    at::manual_seed(1);
    if (like.imgs.defined()) batch_.imgs = at::rand(like.imgs.sizes());
    if (like.heatmap_imgs.defined()) batch_.heatmap_imgs = at::rand(like.heatmap_imgs.sizes());
    batch_.labels = at::arange(clips, at::kLong).remainder_(config_.model.num_classes);
    batch_.ids.assign(static_cast<size_t>(clips), "clip");
  }

  StepResult Run(int64_t iteration) {
    int64_t left = config_.train.accumulate;
    return step_->Run(iteration, 0.01, [&](Batch* batch) {
      if (left-- == 0) return false;
      *batch = batch_;
      return true;
    });
  }
  const char* at_work() const { return step_->at_work(); }
  std::vector<at::Tensor> Weights() const {
    std::vector<at::Tensor> all;
    for (const NamedTensor& entry : network_->StateDict()) {
      all.push_back(entry.tensor.detach().cpu());
      EXPECT_FALSE(entry.tensor.grad().defined()) << entry.name;
    }
    return all;
  }

 private:
  Config config_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<TrainStep> step_;
  Batch batch_;
};

Config MediumConfig(const std::string& type, const std::string& recompute,
                    const std::string& precision) {
  Config config;
  config.device = "cuda";
  config.model.type = type;
  config.model.num_classes = 10;
  config.model.rgb.base_channels = 32;
  config.model.pose.base_channels = 16;
  config.data.crop = 112;
  config.data.heatmap.scaling = 0.25;
  config.train.batch_size = 4;
  config.train.precision = precision;
  config.train.val_every = 0;
  config.memory.recompute = recompute;
  return config;
}

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// What tensors take was rehearsed; what cuDNN and cuBLAS take through the same allocator was
// estimated. A step must stay below what was planned, and the plan must not be far above it.
TEST_F(Gpu, StepsStayWithinWhatWasPlanned) {
  for (const std::string type : {"rgbpose", "rgbpose_attention"}) {
    for (const std::string precision : {"fp32", "bf16"}) {
      for (const std::string recompute : {"none", "lean", "stage", "full"}) {
        const Config config = MediumConfig(type, recompute, precision);
        const Rehearsal rehearsal = RehearseStep(config);
        cache::emptyCache();
        const int64_t before = cache::getDeviceStats(0).allocated_bytes[0].current;
        StepOnGpu step(config);
        step.Run(0);
        cache::emptyCache();
        cache::resetPeakStats(0);
        step.Run(1);
        const auto stats = cache::getDeviceStats(0);
        const int64_t requested = stats.requested_bytes[0].peak;
        const int64_t allocated = stats.allocated_bytes[0].peak;
        const int64_t reserved = stats.reserved_bytes[0].peak;
        std::printf(
            "%-7s %s %-5s rehearsed %8.1f MiB, requested %8.1f, allocated %8.1f; reserved %8.1f, "
            "planned %8.1f; before %5.1f\n",
            type.c_str(), precision.c_str(), recompute.c_str(), MiB(rehearsal.peak), MiB(requested),
            MiB(allocated), MiB(reserved), MiB(rehearsal.reserved), MiB(before));
        const int64_t workspaces = 2 * cuda_constants::kCublasWorkspace;
        // Some kernels (sums over pixels) take a little for themselves.
        EXPECT_NEAR(MiB(requested), MiB(rehearsal.peak + workspaces), 4);
        EXPECT_NEAR(MiB(reserved), MiB(rehearsal.reserved), 32);
      }
    }
  }
}

// Wherever in a step the GPU refuses memory, nothing of the step stays, and run again it comes out
// as if nothing had been.
TEST_F(Gpu, AStepWithoutMemoryIsAllOrNothing) {
  for (const std::string recompute : {"none", "lean", "full"}) {
    Config config = MediumConfig("rgbpose_attention", recompute, "fp32");
    config.train.accumulate = 2;
    StepOnGpu undisturbed(config);
    undisturbed.Run(0);
    cache::emptyCache();
    cache::resetPeakStats(0);
    const int64_t with_both = cache::getDeviceStats(0).reserved_bytes[0].current;
    const StepResult expected = undisturbed.Run(1);
    const int64_t takes = cache::getDeviceStats(0).reserved_bytes[0].peak - with_both;
    StepOnGpu step(config);
    step.Run(0);
    const std::vector<at::Tensor> weights = step.Weights();
    cache::emptyCache();
    const int64_t least = cache::getDeviceStats(0).reserved_bytes[0].current;
    int failures = 0;
    std::string where;
    constexpr int64_t kTries = 16;
    for (int64_t i = 1; i <= 2 * kTries; ++i) {
      cache::emptyCache();
      LimitGpuMemory(kGpu, least + takes * i / kTries);
      try {
        const StepResult result = step.Run(1);
        // cuDNN takes algorithms with less workspace where there is little room.
        EXPECT_NEAR(result.loss / expected.loss, 1, 1e-4);
        break;
      } catch (const c10::OutOfMemoryError&) {
        ++failures;
        where += std::string(" ") + step.at_work();
      }
      LimitGpuMemory(kGpu, 0);
      const std::vector<at::Tensor> after = step.Weights();
      ASSERT_EQ(after.size(), weights.size());
      for (size_t i = 0; i < after.size(); ++i) ASSERT_TRUE(at::equal(after[i], weights[i])) << i;
    }
    LimitGpuMemory(kGpu, 0);
    std::printf("%s: refused%s, then done\n", recompute.c_str(), where.c_str());
    EXPECT_GE(failures, 3);
    const std::vector<at::Tensor> done = step.Weights();
    const std::vector<at::Tensor> other = undisturbed.Weights();
    int same = 0;
    for (size_t i = 0; i < done.size(); ++i) same += at::equal(done[i], other[i]) ? 1 : 0;
    std::printf("  %d of %zu tensors have the bits of an undisturbed step\n", same, done.size());
  }
}

// ---- NCCL. Two ranks need two GPUs; one rank goes the same way through c10d.

TEST_F(Gpu, GradientsComeThroughNccl) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const ProcessGroup group = MakeNccl(store, 0, 1, std::chrono::seconds(30));
  ConnectNccl(group);
  std::vector<at::Tensor> parameters;
  for (int i = 0; i < 4; ++i) {
    parameters.push_back(at::rand({64, 64}, OnGpu().dtype(at::kFloat)).requires_grad_());
  }
  const auto loss = [&] {
    return parameters[0].mm(parameters[1]).mm(parameters[2]).mm(parameters[3]).sum();
  };
  loss().backward();
  std::vector<at::Tensor> expected;
  for (at::Tensor& parameter : parameters) {
    expected.push_back(parameter.grad().clone());
    parameter.mutable_grad() = at::Tensor();
  }
  GradientBuckets buckets(parameters, {3, 2, 1, 0}, 20000, group);
  for (int step = 0; step < 3; ++step) {
    buckets.Begin();
    buckets.Expect();
    loss().backward();
    buckets.SendRest(false);
    buckets.Await();
    for (size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_TRUE(at::equal(parameters[i].grad(), expected[i])) << i;
      parameters[i].mutable_grad() = at::Tensor();
    }
  }
  group->shutdown();
}

#endif

}  // namespace
}  // namespace kinefit::testing

// cuDNN computes convolutions in TF32 unless told otherwise, before it is first used.
int main(int argc, char** argv) {
  setenv("NVIDIA_TF32_OVERRIDE", "0", 0);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
