#include "model/network.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "files/error.h"
#include "model/cross_attention.h"
#include "model/loss.h"

namespace kinefit {
namespace {

ModelConfig Tiny(const std::string& type) {
  ModelConfig config;
  config.type = type;
  config.num_classes = 7;
  config.rgb.base_channels = 8;
  config.rgb.zero_init_last_bn = false;  // so that every branch counts
  config.pose.base_channels = 4;
  config.pose.zero_init_last_bn = false;
  config.attention.width = 24;
  config.attention.chunk = 50;
  return config;
}

NetworkInput TinyInput(int64_t rgb_frames = 2, int64_t pose_frames = 8) {
  at::manual_seed(5);
  return {at::randn({2, 3, rgb_frames, 32, 32}), at::rand({2, 17, pose_frames, 8, 8})};
}

std::unique_ptr<Network> Made(const ModelConfig& config, uint64_t seed = 1,
                              at::ScalarType type = at::kFloat) {
  auto network = MakeNetwork(config, at::TensorOptions().dtype(type));
  InitialiseNetwork(*network, config, seed);
  return network;
}

at::Tensor Named(const Network& network, const std::string& name) {
  for (const auto& entry : network.StateDict()) {
    if (entry.name == name) return entry.tensor;
  }
  throw Error("no tensor " + name);
}

NetworkOutput RunNetwork(Network& network, const NetworkInput& input, bool training,
                         uint64_t seed = 1) {
  RandomStream random(seed, "step");
  network.Train(training);
  return network.Forward(input, random);
}

void OpenGates(const Network& network, double value) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : network.parameters()) {
    if (name.find(".gate") != std::string::npos) tensor.fill_(value);
  }
}

double Difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(NetworkTest, PcanWithZeroGatesIsRgbPoseBitForBit) {
  for (const std::string scope : {"global", "frame"}) {
    ModelConfig config = Tiny("rgbpose_attention");
    config.attention.scope = scope;
    config.fusion.rgb_drop_path = 0.5;  // the random draws must agree, too
    const auto pcan = Made(config);
    config.type = "rgbpose";
    const auto rgbpose = Made(config);
    const NetworkInput input = TinyInput();
    for (const bool training : {true, false}) {
      const auto got = RunNetwork(*pcan, input, training);
      const auto want = RunNetwork(*rgbpose, input, training);
      for (const std::string stream : {"rgb", "pose"}) {
        EXPECT_TRUE(at::equal(got.at(stream), want.at(stream))) << scope << stream << training;
      }
      EXPECT_TRUE(at::equal(got.feature_rgb, want.feature_rgb));
      EXPECT_TRUE(at::equal(got.feature_pose, want.feature_pose));
    }
    EXPECT_EQ(RunNetwork(*pcan, input, false).at("fused").sizes(), at::IntArrayRef({2, 7}));
  }
}

TEST(NetworkTest, AttentionLearnsOnceItsGateIsOpen) {
  const auto pcan = Made(Tiny("rgbpose_attention"));
  const NetworkInput input = TinyInput();
  const auto closed = RunNetwork(*pcan, input, false);
  OpenGates(*pcan, 0.5);
  const auto open = RunNetwork(*pcan, input, false);
  EXPECT_GT(Difference(closed.at("rgb"), open.at("rgb")), 1e-6);
  EXPECT_GT(Difference(closed.at("pose"), open.at("pose")), 1e-6);
  const auto output = RunNetwork(*pcan, input, true);
  ComputeLoss(output, at::zeros({2}, at::kLong), HeadConfig()).total.backward();
  for (const auto& [name, tensor] : pcan->parameters()) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_GT(tensor.grad().abs().max().item<double>(), 0) << name;
  }
}

TEST(NetworkTest, GatesLearnFromZero) {
  const auto pcan = Made(Tiny("rgbpose_attention"));
  ComputeLoss(RunNetwork(*pcan, TinyInput(), true), at::ones({2}, at::kLong), HeadConfig())
      .total.backward();
  EXPECT_NE(Named(*pcan, "backbone.attention_stage3.rgb.gate").grad().item<double>(), 0);
  EXPECT_NE(Named(*pcan, "backbone.attention_final.pose.gate").grad().item<double>(), 0);
}

TEST(NetworkTest, FrameScopeSeesItsOwnMomentOnly) {
  ModelConfig config = Tiny("rgbpose_attention");
  config.attention.scope = "frame";
  NetworkTensors tensors;
  TensorMaker maker(at::TensorOptions(), &tensors);
  const CrossAttention attention(maker, "a", 6, 5, config);
  const at::NoGradGuard no_grad;
  at::manual_seed(2);
  for (const auto& [name, tensor] : tensors.parameters) tensor.normal_();
  RandomStream random(1, "step");
  const Recompute recompute;
  const ForwardContext context{false, random, nullptr, recompute};
  const auto attend = [&](const at::Tensor& x, const at::Tensor& other) {
    const auto found = attention.Forward({x, nullptr}, {other, nullptr}, context);
    return std::make_pair(found.first.value, found.second.value);
  };
  const at::Tensor rgb = at::randn({2, 6, 3, 4, 4});
  const at::Tensor pose = at::randn({2, 5, 12, 2, 2});
  const auto before = attend(rgb, pose);
  const at::Tensor changed = pose.clone();
  changed.narrow(2, 5, 1).add_(1);  // a frame of the second moment
  const auto after = attend(rgb, changed);
  EXPECT_TRUE(at::equal(before.first.select(2, 0), after.first.select(2, 0)));
  EXPECT_FALSE(at::equal(before.first.select(2, 1), after.first.select(2, 1)));
  EXPECT_TRUE(at::equal(before.first.select(2, 2), after.first.select(2, 2)));
  const at::Tensor recoloured = rgb.clone();
  recoloured.narrow(2, 2, 1).add_(1);
  const auto last = attend(recoloured, pose);
  EXPECT_TRUE(at::equal(before.second.narrow(2, 0, 8), last.second.narrow(2, 0, 8)));
  EXPECT_FALSE(at::equal(before.second.narrow(2, 8, 4), last.second.narrow(2, 8, 4)));
  EXPECT_THROW(attend(rgb, pose.narrow(2, 0, 11)), Error);
}

// Gradients, logits and running statistics of one training pass.
std::vector<at::Tensor> Trained(const ModelConfig& config, const Recompute& recompute,
                                at::ScalarType type) {
  const auto network = Made(config, 1, type == at::kDouble ? at::kDouble : at::kFloat);
  OpenGates(*network, 0.5);
  network->SetRecompute(recompute);
  if (type != at::kDouble) network->SetComputeType(type);
  NetworkInput input = TinyInput();
  if (type == at::kDouble) {
    input = {input.imgs.to(type), input.heatmap_imgs.to(type)};
  }
  const NetworkOutput output = RunNetwork(*network, input, true);
  ComputeLoss(output, at::ones({2}, at::kLong), HeadConfig()).total.backward();
  std::vector<at::Tensor> all;
  for (const auto& [stream, logits] : output.logits) all.push_back(logits.detach());
  for (const auto& [name, tensor] : network->parameters()) all.push_back(tensor.grad());
  for (const auto& [name, tensor] : network->buffers()) all.push_back(tensor);
  return all;
}

// Root mean square over the tensors of their relative distances.
double Distance(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& want) {
  double sum = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const at::Tensor exact = want[i].to(at::kDouble);
    const double norm = std::max(exact.norm().item<double>(), 1e-12);
    const double off = (got[i].to(at::kDouble) - exact).norm().item<double>() / norm;
    sum += off * off;
  }
  return std::sqrt(sum / static_cast<double>(got.size()));
}

TEST(NetworkTest, RecomputingChangesNoBit) {
  for (const char* type : {"rgb", "pose", "rgbpose", "rgbpose_attention"}) {
    ModelConfig config = Tiny(type);
    config.fusion.rgb_detach = std::string(type) == "rgbpose_attention";
    const auto segments = Made(config)->Segments();
    const auto plain = Trained(config, ParseRecompute("none", segments, ""), at::kFloat);
    const auto lean = Trained(config, ParseRecompute("lean", segments, ""), at::kFloat);
    // Lean is no further from the exact result than plain: both round, in their own order.
    const auto exact = Trained(config, ParseRecompute("none", segments, ""), at::kDouble);
    EXPECT_LT(Distance(lean, exact), 2 * Distance(plain, exact) + 1e-6) << type;
    const auto lean16 = Trained(config, ParseRecompute("lean", segments, ""), at::kBFloat16);
    const std::string mixed = "light " + segments[0] + "=lean " + segments[1] + "=full " +
                              segments[2] + "=block " + segments.back() + "=stage";
    for (const std::string text : {"lean", "light", "block", "stage", "full", mixed.c_str()}) {
      const auto recompute = ParseRecompute(text, segments, "");
      const auto got = Trained(config, recompute, at::kFloat);
      const auto got16 = Trained(config, recompute, at::kBFloat16);
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_TRUE(at::equal(got[i], lean[i])) << type << " " << text << " " << i;
        EXPECT_TRUE(at::equal(got16[i], lean16[i])) << type << " " << text << " " << i << " bf16";
      }
    }
  }
}

TEST(RecomputeTest, TextsAreReadAndWritten) {
  const std::vector<std::string> segments = {"rgb.stem", "rgb.layer1", "rgb.layer2"};
  for (const std::string text : {"none", "lean", "light", "block", "stage", "full",
                                 "light rgb.layer1=block", "lean rgb.stem=light rgb.layer2=full"}) {
    EXPECT_EQ(RecomputeText(ParseRecompute(text, segments, "key"), segments), text);
  }
  for (const std::string text : {"", "leen", "none lean", "light rgb.layer9=block", "lean x",
                                 "lean rgb.layer1=none", "lean rgb.layer1="}) {
    EXPECT_THROW(ParseRecompute(text, segments, "key"), Error) << text;
  }
}

TEST(NetworkTest, DropoutIsAFunctionOfTheStream) {
  const auto network = Made(Tiny("rgbpose"));
  const NetworkInput input = TinyInput();
  const auto first = RunNetwork(*network, input, true, 1);
  EXPECT_TRUE(at::equal(first.at("rgb"), RunNetwork(*network, input, true, 1).at("rgb")));
  EXPECT_FALSE(at::equal(first.at("rgb"), RunNetwork(*network, input, true, 2).at("rgb")));
  EXPECT_FALSE(at::equal(first.at("pose"), RunNetwork(*network, input, true, 2).at("pose")));
}

TEST(NetworkTest, DropPathSilencesTheOtherStream) {
  for (const bool drop : {false, true}) {
    ModelConfig config = Tiny("rgbpose");
    config.fusion.rgb_drop_path = drop ? 1 : 0;
    config.fusion.pose_drop_path = drop ? 0 : 1;
    const auto network = Made(config);
    const NetworkInput input = TinyInput();
    const NetworkInput other{at::randn_like(input.imgs), at::rand_like(input.heatmap_imgs)};
    const auto base = RunNetwork(*network, input, true);
    const auto pose = RunNetwork(*network, {input.imgs, other.heatmap_imgs}, true);
    const auto rgb = RunNetwork(*network, {other.imgs, input.heatmap_imgs}, true);
    EXPECT_EQ(at::equal(base.at("rgb"), pose.at("rgb")), drop);
    EXPECT_EQ(at::equal(base.at("pose"), rgb.at("pose")), !drop);
  }
}

// Whether any parameter of `path` gets a gradient from the loss of `stream`.
bool Reaches(const ModelConfig& config, const std::string& stream, const std::string& path) {
  const auto network = Made(config);
  OpenGates(*network, 1);
  RunNetwork(*network, TinyInput(), true).at(stream).square().sum().backward();
  const std::string prefix = "backbone." + path + ".conv1.conv.weight";
  const at::Tensor grad = Named(*network, prefix).grad();
  return grad.defined() && grad.abs().max().item<double>() > 0;
}

TEST(NetworkTest, DetachStopsGradientsBetweenStreams) {
  for (const std::string type : {"rgbpose", "rgbpose_attention"}) {
    ModelConfig config = Tiny(type);
    EXPECT_TRUE(Reaches(config, "rgb", "pose_path"));
    EXPECT_TRUE(Reaches(config, "pose", "rgb_path"));
    config.fusion.rgb_detach = true;
    config.fusion.pose_detach = true;
    EXPECT_FALSE(Reaches(config, "rgb", "pose_path"));
    EXPECT_FALSE(Reaches(config, "pose", "rgb_path"));
    EXPECT_TRUE(Reaches(config, "rgb", "rgb_path"));
  }
}

TEST(NetworkTest, OtherShapesAndPlacements) {
  ModelConfig config = Tiny("rgbpose_attention");
  config.rgb.stage_blocks = {1, 2, 1};
  config.rgb.inflate = {0, 1, 1};
  config.rgb.spatial_strides = {1, 2, 2};
  config.rgb.temporal_strides = {1, 1, 2};
  config.rgb.lateral_activate = {0, 1, 0};
  config.rgb.conv1_kernel = {3, 5, 5};
  config.rgb.base_channels = 12;
  config.pose.stage_blocks = {1, 1};
  config.pose.inflate = {1, 0};
  config.pose.spatial_strides = {2, 2};
  config.pose.temporal_strides = {1, 1};
  config.pose.lateral_activate = {1, 0};
  config.pose.base_channels = 24;
  config.pose.pool1_stride_s = 1;
  config.fusion = {2, 2, 5, 3, 2, false, false, 0, 0};
  // Both laterals stand where the pose stem has 24 channels and RGB layer1 has 48.
  const auto network = Made(config);
  EXPECT_EQ(Named(*network, "backbone.rgb_path.layer1_lateral.conv.weight").sizes(),
            at::IntArrayRef({72, 24, 5, 1, 1}));
  EXPECT_EQ(Named(*network, "backbone.pose_path.conv1_lateral.conv.weight").sizes(),
            at::IntArrayRef({48, 24, 5, 1, 1}));
  const auto output =
      RunNetwork(*network, {at::rand({1, 3, 4, 32, 32}), at::rand({1, 17, 8, 8, 8})}, true);
  EXPECT_EQ(output.feature_rgb.sizes(), at::IntArrayRef({1, 192, 2, 2, 2}));
  EXPECT_EQ(output.feature_pose.sizes(), at::IntArrayRef({1, 192, 8, 2, 2}));
}

TEST(NetworkTest, SingleStreamsHaveOneClassifier) {
  const NetworkInput input = TinyInput();
  const auto rgb = RunNetwork(*Made(Tiny("rgb")), {input.imgs, {}}, true);
  ASSERT_EQ(rgb.logits.size(), 1U);
  EXPECT_EQ(rgb.logits[0].first, "rgb");
  EXPECT_FALSE(rgb.feature_pose.defined());
  const auto pose = RunNetwork(*Made(Tiny("pose")), {{}, input.heatmap_imgs}, true);
  EXPECT_EQ(pose.at("pose").sizes(), at::IntArrayRef({2, 7}));
  EXPECT_THROW(pose.at("fused"), Error);
}

void ExpectRejected(const std::string& where, const std::function<void(ModelConfig&)>& change) {
  ModelConfig config = Tiny("rgbpose_attention");
  change(config);
  try {
    MakeNetwork(config, at::TensorOptions().device(at::kMeta));
    ADD_FAILURE() << "accepted: " << where;
  } catch (const Error& error) {
    EXPECT_EQ(error.where(), where);
  }
}

TEST(NetworkTest, ConfigurationsThatMakeNoNetwork) {
  ExpectRejected("model.type", [](ModelConfig& c) { c.type = "resnet"; });
  ExpectRejected("model.num_classes", [](ModelConfig& c) { c.num_classes = 0; });
  ExpectRejected("model.rgb.inflate", [](ModelConfig& c) { c.rgb.inflate = {0, 1}; });
  ExpectRejected("model.pose.stage_blocks", [](ModelConfig& c) { c.pose.stage_blocks = {}; });
  ExpectRejected("model.rgb.base_channels", [](ModelConfig& c) { c.rgb.base_channels = 0; });
  ExpectRejected("model.fusion.channel_ratio", [](ModelConfig& c) { c.rgb.base_channels = 64; });
  ExpectRejected("model.fusion.fusion_kernel", [](ModelConfig& c) { c.fusion.fusion_kernel = 6; });
  ExpectRejected("model.attention.width", [](ModelConfig& c) { c.attention.heads = 5; });
  ExpectRejected("model.attention.points", [](ModelConfig& c) { c.attention.points = {"stem"}; });
  ExpectRejected("model.attention.scope", [](ModelConfig& c) { c.attention.scope = "video"; });
  ExpectRejected("model.rgb.lateral_activate", [](ModelConfig& c) {
    c.rgb.lateral_activate = {1, 0, 0, 0};
  });
}

TEST(NetworkTest, InputsThatDoNotFit) {
  const auto network = Made(Tiny("rgbpose"));
  const NetworkInput input = TinyInput();
  EXPECT_THROW(RunNetwork(*network, {input.imgs, {}}, false), Error);
  EXPECT_THROW(RunNetwork(*network, {input.imgs, at::rand({2, 18, 8, 8, 8})}, false), Error);
  EXPECT_THROW(RunNetwork(*network, TinyInput(2, 6), false),
               Error);  // not speed_ratio times as long
}

TEST(NetworkTest, ComputesInBfloat16) {
  const auto network = Made(Tiny("rgbpose_attention"));
  OpenGates(*network, 0.5);
  const NetworkInput input = TinyInput();
  const auto full = RunNetwork(*network, input, false);
  network->SetComputeType(at::kBFloat16);
  const auto output = RunNetwork(*network, input, false);
  Loss loss =
      ComputeLoss(RunNetwork(*network, input, true), at::ones({2}, at::kLong), HeadConfig());
  EXPECT_EQ(loss.total.scalar_type(), at::kFloat);
  loss.total.backward();
  for (const auto& [name, tensor] : network->parameters()) {
    ASSERT_TRUE(tensor.grad().defined()) << name;
    EXPECT_EQ(tensor.grad().scalar_type(), at::kFloat);
    EXPECT_TRUE(tensor.grad().isfinite().all().item<bool>()) << name;
  }
  EXPECT_GT(Difference(full.at("rgb"), output.at("rgb")), 0);
  EXPECT_LT(Difference(full.at("rgb"), output.at("rgb")),
            0.1 * full.at("rgb").abs().max().item<double>());
}

TEST(InitialiseTest, FollowsTheReferenceByKindOfLayer) {
  ModelConfig config;
  config.type = "rgbpose_attention";
  const auto network = Made(config);
  const auto std_of = [&](const std::string& name) {
    return Named(*network, name).std().item<double>();
  };
  const double conv2 = std::sqrt(2.0 / (512 * 9));  // fan out of 512 channels, 1x3x3
  EXPECT_NEAR(std_of("backbone.rgb_path.layer4.1.conv2.conv.weight"), conv2, 0.005 * conv2);
  EXPECT_NEAR(Named(*network, "backbone.rgb_path.layer4.1.conv2.conv.weight").mean().item<double>(),
              0, 0.01 * conv2);
  // PyTorch's default for a transposed convolution: uniform, fan in = out channels * 7.
  const double bound = 1 / std::sqrt(32.0 * 7);
  const at::Tensor up = Named(*network, "backbone.pose_path.layer1_lateral.conv.weight");
  EXPECT_LE(up.abs().max().item<double>(), bound);
  EXPECT_NEAR(up.std().item<double>(), bound / std::sqrt(3.0), 0.01 * bound);
  EXPECT_NEAR(std_of("cls_head.fc_rgb.weight"), 0.01, 0.0002);
  EXPECT_EQ(Named(*network, "cls_head.fc_rgb.bias").abs().max().item<double>(), 0);
  EXPECT_EQ(Named(*network, "backbone.rgb_path.layer1.0.conv3.bn.weight").max().item<double>(), 0);
  EXPECT_EQ(Named(*network, "backbone.rgb_path.layer1.0.conv2.bn.weight").min().item<double>(), 1);
  EXPECT_EQ(Named(*network, "backbone.rgb_path.layer1.0.downsample.bn.weight").min().item<double>(),
            1);
  EXPECT_EQ(Named(*network, "backbone.attention_final.rgb.gate").item<double>(), 0);
}

TEST(InitialiseTest, DependsOnSeedAndNameAlone) {
  const auto pcan = Made(Tiny("rgbpose_attention"), 3);
  const auto again = Made(Tiny("rgbpose"), 3);
  const auto other = Made(Tiny("rgbpose"), 4);
  const std::string name = "backbone.pose_path.layer2.1.conv1.conv.weight";
  EXPECT_TRUE(at::equal(Named(*pcan, name), Named(*again, name)));
  EXPECT_FALSE(at::equal(Named(*other, name), Named(*again, name)));
  EXPECT_FALSE(at::equal(Named(*again, name),
                         Named(*again, "backbone.pose_path.layer2.2.conv1.conv.weight")));
}

TEST(LossTest, SmoothingSpreadsOverAllClasses) {
  at::manual_seed(1);
  const at::Tensor logits = at::randn({4, 5});
  const at::Tensor labels = at::tensor({0, 3, 4, 1}, at::kLong);
  HeadConfig config;
  config.label_smoothing = 0.2;
  config.pose_loss_weight = 0.5;
  NetworkOutput output;
  output.logits = {{"rgb", logits}, {"pose", logits}};
  const Loss loss = ComputeLoss(output, labels, config);
  const at::Tensor target = at::one_hot(labels, 5) * 0.8 + 0.2 / 5;
  const double want = -(target * at::log_softmax(logits, 1)).sum(1).mean().item<double>();
  EXPECT_NEAR(loss.parts[0].second.item<double>(), want, 1e-6);
  EXPECT_NEAR(loss.total.item<double>(), 1.5 * want, 1e-6);
}

}  // namespace
}  // namespace kinefit
