// The network against mmaction2's: names, shapes, logits, losses, gradients, running statistics and
// six SGD steps. Tolerances are those of the fixtures' README.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "files/npy.h"
#include "libtorch/versions.h"
#include "model/loss.h"
#include "model/network.h"
#include "tests/parity_fixtures.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace kinefit::testing {
namespace {

#define SKIP_WITHOUT_FIXTURES()                            \
  if (!std::filesystem::exists(kFixtures + "README.md")) { \
    GTEST_SKIP() << "no fixtures at " << kFixtures;        \
  }

// The arrays of one .npz as tensors.
class Arrays {
 public:
  explicit Arrays(const std::string& file) : arrays_(ReadNpz(kFixtures + file)) {}
  at::Tensor operator[](const std::string& name) const { return ToTensor(arrays_.at(name)); }
  bool Has(const std::string& name) const { return arrays_.count(name) != 0; }

 private:
  NpzArrays arrays_;
};

NetworkOutput Forward(Network& network, const NetworkInput& input, bool training) {
  RandomStream random(1, "parity");
  network.Train(training);
  return network.Forward(input, random);
}

TEST(ParityModelTest, NamesAndShapesOfTheFullSizeNetworks) {
  SKIP_WITHOUT_FIXTURES();
  const std::vector<std::tuple<std::string, std::string, int64_t>> cases = {
      {"rgbpose", "rgbpose_full_state_dict.json", 36147928},
      {"rgb", "rgb_only_full_state_dict.json", 31757436},
      {"pose", "pose_only_full_state_dict.json", 2024860}};
  for (const auto& [type, file, count] : cases) {
    ModelConfig config;
    config.type = type;
    const auto network = MakeNetwork(config, at::TensorOptions().device(at::kMeta));
    std::ifstream stream(kFixtures + file);
    const auto expected = nlohmann::ordered_json::parse(stream);
    const auto state = network->StateDict();
    ASSERT_EQ(state.size(), expected.size());
    size_t i = 0;
    for (const auto& [name, shape] : expected.items()) {
      EXPECT_EQ(state[i].name, name);
      EXPECT_EQ(state[i].tensor.sizes().vec(), shape.get<std::vector<int64_t>>()) << name;
      ++i;
    }
    int64_t parameters = 0;
    for (const auto& [name, tensor] : network->parameters()) parameters += tensor.numel();
    EXPECT_EQ(parameters, count) << type;
  }
}

TEST(ParityModelTest, EvaluationMode) {
  SKIP_WITHOUT_FIXTURES();
  const Arrays io("rgbpose_tiny_io.npz");
  for (const std::string file : {"rgbpose_tiny.pth", "rgbpose_tiny_mmengine.pth"}) {
    const auto network = TinyNetwork(file);
    const at::NoGradGuard no_grad;
    const auto output = Forward(*network, {io["imgs"], io["heatmap_imgs"]}, false);
    EXPECT_LT(RelativeError(output.feature_rgb, io["eval_feat_rgb"]), 1e-5);
    EXPECT_LT(RelativeError(output.feature_pose, io["eval_feat_pose"]), 1e-5);
    EXPECT_LT(RelativeError(output.at("rgb"), io["eval_logits_rgb"]), 1e-5);
    EXPECT_LT(RelativeError(output.at("pose"), io["eval_logits_pose"]), 1e-5);
  }
}

TEST(ParityModelTest, TrainingModeGradientsAndRunningStatistics) {
  SKIP_WITHOUT_FIXTURES();
  const Arrays io("rgbpose_tiny_io.npz");
  const auto network = TinyNetwork("rgbpose_tiny.pth");
  const auto output = Forward(*network, {io["imgs"], io["heatmap_imgs"]}, true);
  EXPECT_LT(RelativeError(output.at("rgb"), io["train_logits_rgb"]), 1e-5);
  EXPECT_LT(RelativeError(output.at("pose"), io["train_logits_pose"]), 1e-5);
  const Loss loss = ComputeLoss(output, io["labels"], TinyConfig().head);
  EXPECT_NEAR(loss.parts[0].second.item<double>() / io["loss_rgb"].item<double>(), 1, 1e-5);
  EXPECT_NEAR(loss.parts[1].second.item<double>() / io["loss_pose"].item<double>(), 1, 1e-5);
  loss.total.backward();
  double worst = 0;
  for (const auto& [name, tensor] : network->parameters()) {
    const double error = RelativeError(tensor.grad(), io["grad/" + name]);
    EXPECT_LT(error, 1e-4) << name;
    worst = std::max(worst, error);
  }
  RecordProperty("worst_gradient", std::to_string(worst));
  int64_t compared = 0;
  for (const auto& [name, tensor] : network->buffers()) {
    if (!io.Has("after1/" + name)) continue;
    EXPECT_LT(RelativeError(tensor, io["after1/" + name]), 1e-5) << name;
    ++compared;
  }
  EXPECT_EQ(compared, static_cast<int64_t>(network->buffers().size()) * 2 / 3);
}

struct Step {
  double loss, grad_norm;
};

// The trainer's own steps: forward, loss, backward, clipping, SGD with momentum and weight decay.
std::vector<Step> SixSteps(Network& network, at::ScalarType type) {
  const Arrays io("rgbpose_tiny_io.npz");
  const Arrays sgd("rgbpose_tiny_sgd6.npz");
  network.Train(true);
  Config config;
  config.model = TinyConfig();
  config.train.batch_size = 3;
  config.train.optimizer.momentum = 0.9;
  config.train.optimizer.weight_decay = 1e-4;
  config.train.optimizer.clip_norm = 4;
  const auto optimizer = MakeOptimizer(config.train.optimizer, network.parameters());
  TrainStep step(network, config, *optimizer, nullptr);
  std::vector<Step> steps;
  for (int64_t i = 0; i < 6; ++i) {
    const at::Tensor order = sgd["order"][i];
    bool given = false;
    const StepResult result = step.Run(i, 0.02, [&](Batch* batch) {
      if (given) return false;
      batch->imgs = io["imgs"].index_select(0, order).to(type);
      batch->heatmap_imgs = io["heatmap_imgs"].index_select(0, order).to(type);
      batch->labels = sgd["labels"][i];
      batch->ids = {"a", "b", "c"};
      given = true;
      return true;
    });
    steps.push_back({result.loss, result.grad_norm});
  }
  return steps;
}

// From the third step on the fixture's losses are up to 5 % from exact ones: the path of its
// kernels' rounding, which only the same kernels follow (see main). Those of LibTorch 2.x, oneDNN
// 3's and MKL's, are others.
TEST(ParityModelTest, SixSgdSteps) {
  SKIP_WITHOUT_FIXTURES();
  const Arrays sgd("rgbpose_tiny_sgd6.npz");
  const auto network = TinyNetwork("rgbpose_tiny.pth");
  const std::vector<Step> steps = SixSteps(*network, at::kFloat);
  for (int64_t i = 0; i < (kBringsOneDnn3 ? 2 : 6); ++i) {
    const Step& step = steps[static_cast<size_t>(i)];
    EXPECT_NEAR(step.loss / sgd["loss"][i].item<double>(), 1, 1e-3) << i;
    EXPECT_NEAR(step.grad_norm / sgd["grad_norm"][i].item<double>(), 1, 1e-3) << i;
  }
  for (const auto& [name, tensor] : network->StateDict()) {
    if (tensor.scalar_type() == at::kLong) {
      EXPECT_TRUE(at::equal(tensor, sgd["final/" + name])) << name;
    } else if (!kBringsOneDnn3) {
      EXPECT_LT(RelativeError(tensor, sgd["final/" + name]), 1e-3) << name;
    }
  }
}

// In float64 rounding does not matter: these came out alike with LibTorch 1.13 and 2.15.
TEST(ParityModelTest, SixSgdStepsInFloat64AreThoseOfAnyLibTorch) {
  SKIP_WITHOUT_FIXTURES();
  const std::vector<Step> expected = {
      {4.56485288487, 203.724322231}, {4.30045224215, 186.951962411},
      {4.54021916661, 200.672273207}, {4.75321470711, 208.567644739},
      {4.29897029802, 178.950679060}, {4.39648539611, 183.044764401}};
  const auto network = TinyNetwork("rgbpose_tiny.pth", at::kDouble);
  const std::vector<Step> steps = SixSteps(*network, at::kDouble);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(steps[i].loss / expected[i].loss, 1, 1e-9) << i;
    EXPECT_NEAR(steps[i].grad_norm / expected[i].grad_norm, 1, 1e-9) << i;
  }
}

}  // namespace
}  // namespace kinefit::testing

// The tiny network's gradients are not continuous in its rounding errors: one ReLU input that
// crosses zero changes a channel's gradient by percents, and six steps amplify that. The fixtures
// come from AVX2 kernels of oneDNN and OpenBLAS on two threads, so the test asks for just these;
// with them results agree to the last bits, with AVX-512 ones the loss of step six is 2 % off.
int main(int argc, char** argv) {
  const std::vector<std::pair<const char*, const char*>> settings = {
      {"OPENBLAS_CORETYPE", "Haswell"},
      {"ONEDNN_MAX_CPU_ISA", "AVX2"},
      {"OMP_NUM_THREADS", "2"},
      {"OMP_WAIT_POLICY", "PASSIVE"} /* other programs may hold the cores */};
  bool is_set = true;
  for (const auto& [name, value] : settings) {
    const char* now = std::getenv(name);
    is_set = is_set && now != nullptr && std::strcmp(now, value) == 0;
    setenv(name, value, 1);
  }
  if (!is_set) execv("/proc/self/exe", argv);  // OpenBLAS chooses its kernels while it is loaded
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
