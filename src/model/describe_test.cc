#include "model/describe.h"

#include <gtest/gtest.h>

namespace kinefit {
namespace {

Config FullSize(const std::string& type) {
  Config config;
  config.model.type = type;
  config.data.heatmap.scaling = 0.25;
  return config;
}

TEST(DescribeTest, TotalsOfTheFullNetwork) {
  const NetworkDescription description = DescribeNetwork(FullSize("rgbpose"));
  EXPECT_EQ(description.parameters, 36147928);
  EXPECT_NEAR(static_cast<double>(description.macs), 58.0e9, 0.05e9);
  int64_t of_layers = 0;
  for (const LayerRecord& layer : description.layers) of_layers += layer.parameters;
  EXPECT_EQ(of_layers, description.parameters);
  const std::string text = DescriptionText(description);
  EXPECT_NE(text.find("total: 36,147,928 parameters, 58.0"), std::string::npos) << text;
}

TEST(DescribeTest, ShapesAreThoseOfARealPass) {
  for (const std::string type : {"rgbpose_attention", "rgb", "pose"}) {
    Config config = FullSize(type);
    config.model.rgb.base_channels = 8;
    config.model.pose.base_channels = 4;
    config.data.crop = 32;
    config.data.rgb_frames = 2;
    config.data.pose_frames = 8;
    const NetworkDescription description = DescribeNetwork(config);
    const auto network = MakeNetwork(config.model, at::TensorOptions());
    InitialiseNetwork(*network, config.model, 1);
    RandomStream random(1, "step");
    const NetworkOutput output =
        network->Forward({at::rand({1, 3, 2, 32, 32}), at::rand({1, 17, 8, 8, 8})}, random);
    const auto find = [&](const std::string& name) {
      for (const LayerRecord& layer : description.layers) {
        if (layer.name == name) return layer.output;
      }
      return std::vector<int64_t>();
    };
    const std::string rgb = type == "rgb" ? "backbone" : "backbone.rgb_path";
    const std::string pose = type == "pose" ? "backbone" : "backbone.pose_path";
    if (output.feature_rgb.defined()) {
      EXPECT_EQ(find(rgb + ".layer4.2.conv3"), output.feature_rgb.sizes().vec());
    }
    if (output.feature_pose.defined()) {
      EXPECT_EQ(find(pose + ".layer3.2.conv3"), output.feature_pose.sizes().vec());
    }
  }
}

TEST(DescribeTest, AttentionIsCounted) {
  const NetworkDescription description = DescribeNetwork(FullSize("rgbpose_attention"));
  for (const LayerRecord& layer : description.layers) {
    if (layer.name != "backbone.attention_stage3.rgb.attention") continue;
    // 8x14x14 queries, 32x14x14 keys, width 128, two products.
    EXPECT_EQ(layer.macs, int64_t{2} * 8 * 196 * 32 * 196 * 128);
    return;
  }
  FAIL() << "no attention layer";
}

}  // namespace
}  // namespace kinefit
