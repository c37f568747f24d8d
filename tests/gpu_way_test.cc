// The whole network on the way it takes on a GPU (channels-last, two-dimensional convolutions, our
// own kernels for norms and pools), held against the reference and against the CPU's own way. The
// kernels are emulated: what this shows is their logic and everything around them, without a GPU.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "model/loss.h"
#include "ops/channels_last.h"
#include "ops/gpu_kernels.h"
#include "ops/norm_gpu.h"
#include "tests/parity_fixtures.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace kinefit::testing {
namespace {

class GpuWay : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kFixtures + "README.md")) GTEST_SKIP() << "no " << kFixtures;
    io_ = ReadNpz(kFixtures + "rgbpose_tiny_io.npz");
  }
  void TearDown() override { EmulateGpu(nullptr); }

  at::Tensor Io(const std::string& name) const { return ToTensor(io_.at(name)); }

  std::unique_ptr<Network> Trained(at::ScalarType type, const std::string& recompute,
                                   bool on_gpu) const {
    EmulateGpu(on_gpu ? &cuda::EmulatedKernels() : nullptr);
    auto network = TinyNetwork("rgbpose_tiny.pth", type);
    network->SetRecompute(ParseRecompute(recompute, network->Segments(), ""));
    network->Train(true);
    RandomStream random(1, "parity");
    const NetworkOutput output =
        network->Forward({Io("imgs").to(type), Io("heatmap_imgs").to(type)}, random);
    ComputeLoss(output, Io("labels"), TinyConfig().head).total.backward();
    return network;
  }

 private:
  NpzArrays io_;
};

TEST_F(GpuWay, GivesTheReferencesLogits) {
  EmulateGpu(&cuda::EmulatedKernels());
  // In float64: in float32 how sums round on this processor costs half of what is allowed.
  const auto network = TinyNetwork("rgbpose_tiny.pth", at::kDouble);
  EXPECT_TRUE(IsChannelsLast(network->parameters().front().tensor));
  RandomStream random(1, "parity");
  for (const bool training : {false, true}) {
    const at::NoGradGuard no_grad;
    network->Train(training);
    const NetworkOutput output =
        network->Forward({Io("imgs").to(at::kDouble), Io("heatmap_imgs").to(at::kDouble)}, random);
    const std::string prefix = training ? "train_" : "eval_";
    EXPECT_LT(RelativeError(output.at("rgb"), Io(prefix + "logits_rgb")), 1e-5);
    EXPECT_LT(RelativeError(output.at("pose"), Io(prefix + "logits_pose")), 1e-5);
    EXPECT_TRUE(IsChannelsLast(output.feature_rgb));
  }
}

TEST_F(GpuWay, HasTheGradientsOfTheCpusWay) {
  const auto cpu = Trained(at::kDouble, "none", false);
  for (const char* recompute : {"none", "lean", "full"}) {
    const auto gpu = Trained(at::kDouble, recompute, true);
    for (size_t i = 0; i < cpu->parameters().size(); ++i) {
      const auto& [name, parameter] = cpu->parameters()[i];
      const at::Tensor& gradient = gpu->parameters()[i].tensor.grad();
      EXPECT_LT(RelativeError(gradient, parameter.grad()), 1e-9) << name << " " << recompute;
      // Else autograd would have copied it.
      EXPECT_EQ(gradient.strides(), gpu->parameters()[i].tensor.strides()) << name;
    }
    for (size_t i = 0; i < cpu->buffers().size(); ++i) {
      const at::Tensor& of_cpu = cpu->buffers()[i].tensor;
      const at::Tensor& of_gpu = gpu->buffers()[i].tensor;
      if (of_cpu.scalar_type() == at::kDouble) {
        EXPECT_LT(RelativeError(of_gpu, of_cpu), 1e-9) << cpu->buffers()[i].name;
      } else {
        EXPECT_TRUE(at::equal(of_gpu, of_cpu)) << cpu->buffers()[i].name;
      }
    }
  }
}

TEST_F(GpuWay, AllWaysOfRecomputingHaveTheSameBits) {
  const auto none = Trained(at::kFloat, "none", true);
  for (const char* recompute : {"lean", "light", "block", "stage", "full"}) {
    const auto other = Trained(at::kFloat, recompute, true);
    for (size_t i = 0; i < none->parameters().size(); ++i) {
      EXPECT_TRUE(
          at::equal(other->parameters()[i].tensor.grad(), none->parameters()[i].tensor.grad()))
          << none->parameters()[i].name << " " << recompute;
    }
  }
}

// Steps of the trainer, so that weights change under what was prepared of them.
TEST_F(GpuWay, TrainsAsTheCpusWay) {
  const auto train = [&](bool on_gpu) {
    EmulateGpu(on_gpu ? &cuda::EmulatedKernels() : nullptr);
    auto network = TinyNetwork("rgbpose_tiny.pth", at::kDouble);
    network->Train(true);
    Config config;
    config.model = TinyConfig();
    config.train.batch_size = 3;
    const auto optimizer = MakeOptimizer(config.train.optimizer, network->parameters());
    TrainStep step(*network, config, *optimizer, nullptr);
    std::vector<double> losses;
    for (int64_t i = 0; i < 4; ++i) {
      bool given = false;
      losses.push_back(step.Run(i, 0.02,
                                [&](Batch* batch) {
                                  if (given) return false;
                                  batch->imgs = Io("imgs").to(at::kDouble);
                                  batch->heatmap_imgs = Io("heatmap_imgs").to(at::kDouble);
                                  batch->labels = Io("labels");
                                  batch->ids = {"a", "b", "c"};
                                  return given = true;
                                })
                           .loss);
    }
    return losses;
  };
  const std::vector<double> cpu = train(false);
  const std::vector<double> gpu = train(true);
  for (size_t i = 0; i < cpu.size(); ++i) EXPECT_NEAR(gpu[i] / cpu[i], 1, 1e-9) << i;
}

}  // namespace
}  // namespace kinefit::testing
