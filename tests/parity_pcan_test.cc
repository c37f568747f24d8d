// PCAN against the published code: names, shapes, logits, all ten losses, gradients, prototypes and
// running statistics. The parity fixtures are float32, and these tiny networks multiply its
// rounding (tests/fixtures/README.md). Hence wider bounds against them for features, and for the
// backbone's gradients, in which such rounding switches ReLUs over; gradients in float64 are held
// to 1e-8.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "files/error.h"
#include "files/npy.h"
#include "model/network.h"
#include "ops/gpu_kernels.h"
#include "ops/norm_gpu.h"
#include "tests/parity_fixtures.h"

namespace kinefit::testing {
namespace {

std::vector<std::vector<int64_t>> GroupsUpTo(const std::vector<int64_t>& ends) {
  std::vector<std::vector<int64_t>> groups;
  int64_t label = 0;
  for (const int64_t end : ends) {
    groups.emplace_back();
    for (; label <= end; ++label) groups.back().push_back(label);
  }
  return groups;
}

// What the fixture of 52 or 60 classes was made with.
ModelConfig PcanConfig(int64_t classes, bool tiny) {
  ModelConfig config;
  config.type = "pcan";
  config.num_classes = classes;
  config.groups = classes == 52 ? GroupsUpTo({4, 10, 23, 31, 37, 47, 51})
                                : GroupsUpTo({9, 19, 29, 39, 44, 49, 54, 59});
  config.pose.in_channels = classes == 52 ? 28 : 17;
  if (!tiny) return config;
  config.rgb.base_channels = 8;
  config.pose.base_channels = 4;
  config.pcan.coarse_width = 12;
  config.pcan.fine_width = 20;
  config.pcan.attention_dropout = 0;
  config.head.dropout = 0;
  config.head.rgb_loss_weight = 1.0;
  config.head.pose_loss_weight = 1.3;
  config.head.rgb_coarse_loss_weight = 0.5;
  config.head.pose_coarse_loss_weight = 0.8;
  return config;
}

class ParityPcan : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kFixtures + "README.md")) GTEST_SKIP() << "no " << kFixtures;
    io_ = ReadNpz(kFixtures + Name() + "_io.npz");
  }
  void TearDown() override { EmulateGpu(nullptr); }

  std::string Name() const { return "pcan" + std::to_string(GetParam()) + "_tiny"; }
  at::Tensor Io(const std::string& name) const { return ToTensor(io_.at(name)); }
  bool Has(const std::string& name) const { return io_.count(name) != 0; }

  std::unique_ptr<Network> Made(at::ScalarType type) const {
    auto network = MakeNetwork(PcanConfig(GetParam(), true), type);
    const std::string path = kFixtures + Name() + ".pth";
    std::vector<std::pair<std::string, at::Tensor>> target;
    for (const auto& [name, tensor] : network->StateDict()) target.emplace_back(name, tensor);
    const LoadReport report =
        LoadInto(target, StateDictOf(ReadCheckpoint(path), path), /*strict=*/false, path);
    // The published code does not save these.
    EXPECT_EQ(report.missing,
              (std::vector<std::string>{"cls_head.fr_coarse_rgb.spatio_cl_net.avg_f",
                                        "cls_head.fr_coarse_pose.spatio_cl_net.avg_f"}));
    EXPECT_TRUE(report.unexpected.empty() && report.mismatched.empty()) << report.Summary();
    for (const char* stream : {"rgb", "pose"}) {
      Coarse(*network, stream).copy_(Io(std::string("coarse_prototypes/") + stream));
    }
    return network;
  }
  static at::Tensor Buffer(const Network& network, const std::string& name) {
    for (const NamedTensor& buffer : network.buffers()) {
      if (buffer.name == name) return buffer.tensor;
    }
    ADD_FAILURE() << name;
    return {};
  }
  static at::Tensor Coarse(const Network& network, const std::string& stream) {
    return Buffer(network, "cls_head.fr_coarse_" + stream + ".spatio_cl_net.avg_f");
  }
  NetworkOutput Forward(Network& network, at::ScalarType type, bool training) const {
    network.Train(training);
    RandomStream random(1, "parity");
    return network.Forward({Io("imgs").to(type), Io("heatmap_imgs").to(type)}, random);
  }
  void ExpectLogits(const NetworkOutput& output, const std::string& prefix) const {
    EXPECT_LT(RelativeError(output.feature_rgb, Io(prefix + "feature_rgb")), 1e-4);
    EXPECT_LT(RelativeError(output.feature_pose, Io(prefix + "feature_pose")), 1e-4);
    for (const auto& logits : {output.logits, output.coarse}) {
      for (const auto& [stream, value] : logits) {
        EXPECT_LT(RelativeError(value, Io(prefix + "logits_" + stream)), 3e-5) << prefix << stream;
      }
    }
  }

 private:
  NpzArrays io_;
};

TEST_P(ParityPcan, NamesAndShapesAtFullSize) {
  if (GetParam() != 60) GTEST_SKIP() << "there is a list for 60 classes only";
  const auto network = MakeNetwork(PcanConfig(60, false), at::TensorOptions().device(at::kMeta));
  std::ifstream stream(kFixtures + "pcan60_full_state_dict.json");
  const auto expected = nlohmann::ordered_json::parse(stream);
  const auto state = network->StateDict();
  ASSERT_EQ(expected.size(), 656U);
  ASSERT_EQ(state.size(), expected.size() + 2);  // the coarse prototypes
  size_t i = 0;
  int64_t numbers = 0;
  for (const auto& [name, shape] : expected.items()) {
    EXPECT_EQ(state[i].name, name);
    EXPECT_EQ(state[i].tensor.sizes().vec(), shape.get<std::vector<int64_t>>()) << name;
    numbers += state[i].tensor.numel();
    ++i;
  }
  // What the README counts does not have the running statistics.
  EXPECT_EQ(numbers, 39220810);
}

TEST_P(ParityPcan, EvaluationMode) {
  const at::NoGradGuard no_grad;
  const auto network = Made(at::kDouble);
  ExpectLogits(Forward(*network, at::kDouble, false), "eval/");
}

// `type`, `recompute`, and whether the way of a GPU is taken.
struct Way {
  at::ScalarType type;
  std::string recompute;
  bool on_gpu;
};

TEST_P(ParityPcan, TrainingMode) {
  const std::map<std::string, std::string> names = {{"rgb", "rgb_loss_cls"},
                                                    {"pose", "pose_loss_cls"},
                                                    {"rgb_coarse", "rgb_coarse_loss_cls"},
                                                    {"pose_coarse", "pose_coarse_loss_cls"},
                                                    {"rgb_fr_coarse", "rgb_fr_coarse_loss"},
                                                    {"pose_fr_coarse", "pose_fr_coarse_loss"},
                                                    {"rgb_fr", "rgb_fr_loss"},
                                                    {"pose_fr", "pose_fr_loss"},
                                                    {"rgb_hierarchy", "hierarchy_rgb_loss"},
                                                    {"pose_hierarchy", "hierarchy_pose_loss"}};
  for (const Way& way : std::vector<Way>{{at::kDouble, "none", false},
                                         {at::kDouble, "lean", false},
                                         {at::kDouble, "full", false},
                                         {at::kDouble, "lean", true}}) {
    SCOPED_TRACE(way.recompute + (way.on_gpu ? " as on a GPU" : ""));
    EmulateGpu(way.on_gpu ? &cuda::EmulatedKernels() : nullptr);
    const auto network = Made(way.type);
    network->SetRecompute(ParseRecompute(way.recompute, network->Segments(), ""));
    const NetworkOutput output = Forward(*network, way.type, true);
    ExpectLogits(output, "train/");
    const Loss loss = network->LossOf(output, Io("labels"));
    ASSERT_EQ(loss.parts.size(), names.size());
    for (const auto& [name, part] : loss.parts) {
      const double expected = Io("loss/" + names.at(name)).to(at::kDouble).item<double>();
      EXPECT_NEAR(part.item<double>() / expected, 1, 1e-5) << name;
    }
    EXPECT_NEAR(loss.total.item<double>() / Io("loss/total").item<double>(), 1, 1e-5);
    loss.total.backward();
    for (const auto& [name, tensor] : network->parameters()) {
      ASSERT_TRUE(tensor.grad().defined()) << name;
      // A softmax does not see what is added to all keys: its gradient is nothing but rounding.
      if (name.find("k_proj.bias") != std::string::npos) continue;
      const bool of_head = name.find("cls_head.") == 0;
      EXPECT_LT(RelativeError(tensor.grad(), Io("grad/" + name)), of_head ? 1e-4 : 0.15) << name;
    }
    for (const char* stream : {"rgb", "pose"}) {
      const std::string of = std::string("prototypes/") + stream;
      EXPECT_LT(RelativeError(Coarse(*network, stream), Io("after1/coarse_" + of)), 1e-5) << of;
      const at::Tensor fine =
          Buffer(*network, std::string("cls_head.fr_") + stream + ".spatio_cl_net.avg_f");
      EXPECT_LT(RelativeError(fine, Io("after1/" + of)), 1e-5) << of;
    }
    int64_t compared = 0;
    for (const auto& [name, tensor] : network->buffers()) {
      if (!Has("after1/" + name)) continue;
      EXPECT_LT(RelativeError(tensor, Io("after1/" + name)), 1e-5) << name;
      ++compared;
    }
    EXPECT_EQ(compared, 196);
  }
}

TEST_P(ParityPcan, GradientsInFloat64) {
  std::ifstream stream(std::string(KINEFIT_SOURCE) + "/tests/fixtures/pcan" +
                       std::to_string(GetParam()) + "_gradients.json");
  const auto expected = nlohmann::json::parse(stream);
  const auto network = Made(at::kDouble);
  const NetworkOutput output = Forward(*network, at::kDouble, true);
  network->LossOf(output, Io("labels")).total.backward();
  ASSERT_EQ(expected.size(), network->parameters().size());
  for (const auto& [name, tensor] : network->parameters()) {
    if (name.find("k_proj.bias") != std::string::npos) continue;  // 0 but for rounding
    const at::Tensor gradient = tensor.grad().reshape(-1);
    const at::Tensor probe = at::arange(gradient.numel(), at::kDouble).cos();
    const double norm = expected.at(name)[0].get<double>();
    EXPECT_NEAR(gradient.norm().item<double>() / norm, 1, 1e-8) << name;
    EXPECT_NEAR((gradient * probe).sum().item<double>() / norm,
                expected.at(name)[1].get<double>() / norm, 1e-8)
        << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Classes, ParityPcan, ::testing::Values<int64_t>(52, 60));

}  // namespace
}  // namespace kinefit::testing
