#include "model/merge.h"

#include <gtest/gtest.h>

#include <map>

#include "files/error.h"

namespace kinefit {
namespace {

ModelConfig Tiny(const std::string& type) {
  ModelConfig config;
  config.type = type;
  config.num_classes = 5;
  config.rgb.base_channels = 8;
  config.rgb.zero_init_last_bn = false;
  config.pose.base_channels = 4;
  config.pose.zero_init_last_bn = false;
  config.attention.width = 12;
  return config;
}

std::unique_ptr<Network> Made(const std::string& type, uint64_t seed) {
  auto network = MakeNetwork(Tiny(type), at::TensorOptions());
  InitialiseNetwork(*network, Tiny(type), seed);
  return network;
}

NamedTensors Weights(const Network& network) {
  NamedTensors weights;
  for (const auto& [name, tensor] : network.StateDict()) weights.emplace_back(name, tensor);
  return weights;
}

at::Tensor Logits(Network& network, const NetworkInput& input, const std::string& stream) {
  RandomStream random(1, "step");
  return network.Forward(input, random).at(stream);
}

TEST(MergeTest, MergedNetworkComputesWhatTheSingleStreamsDo) {
  const auto rgb = Made("rgb", 1);
  const auto pose = Made("pose", 2);
  const auto pcan = Made("rgbpose_attention", 3);
  std::map<std::string, at::Tensor> there;
  for (const auto& [name, tensor] : pcan->StateDict()) there.emplace(name, tensor);
  {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : MergeSingleStreams(Weights(*rgb), Weights(*pose), *pcan)) {
      ASSERT_EQ(there.count(name), 1U) << name;
      ASSERT_EQ(there[name].sizes(), tensor.sizes()) << name;
      there[name].copy_(tensor);
    }
  }
  at::manual_seed(1);
  const NetworkInput input{at::randn({2, 3, 2, 32, 32}), at::rand({2, 17, 8, 8, 8})};
  const at::Tensor from_rgb = Logits(*rgb, input, "rgb");
  const at::Tensor from_pose = Logits(*pose, input, "pose");
  EXPECT_TRUE(at::allclose(Logits(*pcan, input, "rgb"), from_rgb, 1e-4, 1e-5));
  EXPECT_TRUE(at::allclose(Logits(*pcan, input, "pose"), from_pose, 1e-4, 1e-5));
  EXPECT_TRUE(at::allclose(Logits(*pcan, input, "fused"), from_rgb + from_pose, 1e-4, 1e-5));
}

TEST(MergeTest, OneStreamAloneIsEnough) {
  const auto target = Made("rgbpose", 3);
  const NamedTensors merged = MergeSingleStreams({}, Weights(*Made("pose", 2)), *target);
  EXPECT_FALSE(merged.empty());
  for (const auto& [name, tensor] : merged) EXPECT_EQ(name.find("rgb"), std::string::npos) << name;
}

TEST(MergeTest, OnlyLateralChannelsArePadded) {
  ModelConfig config = Tiny("pose");
  config.pose.in_channels = 14;
  const auto pose = MakeNetwork(config, at::TensorOptions());
  InitialiseNetwork(*pose, config, 1);
  for (const auto& [name, tensor] : MergeSingleStreams({}, Weights(*pose), *Made("rgbpose", 3))) {
    // The stem's channels are joints: not to be filled up, left for loading to report.
    if (name == "backbone.pose_path.conv1.conv.weight") {
      EXPECT_EQ(tensor.size(1), 14);
    }
  }
}

TEST(MergeTest, RejectsOtherNetworks) {
  const auto target = Made("rgbpose", 3);
  EXPECT_THROW(MergeSingleStreams(Weights(*target), {}, *target), Error);
  EXPECT_THROW(MergeSingleStreams({{"features.0.weight", at::zeros({1})}}, {}, *target), Error);
}

}  // namespace
}  // namespace kinefit
