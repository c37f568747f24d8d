#include "train/step_rehearsal.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "files/error.h"
#include "libtorch/versions.h"
#include "loader/device_heatmaps.h"
#include "memory/cpu_allocator.h"
#include "model/describe.h"
#include "model/network.h"
#include "train/ema.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace kinefit {
namespace {

// Before the first tensor of the program.
const bool kInstalled = (InstallCpuAllocator(), true);

Config SmallConfig(const std::string& type) {
  Config config;
  config.model.type = type;
  config.model.num_classes = 10;
  config.model.rgb.base_channels = 16;
  config.model.pose.base_channels = 8;
  config.data.crop = 64;
  config.data.heatmap.scaling = 0.25;
  config.data.prefetch = 2;
  config.train.batch_size = 2;
  return config;
}

Batch RealBatch(const Config& config) {
  const int64_t clips = config.train.batch_size;
  const NetworkInput like = TrainingInputOnMeta(config, clips);
  Batch batch;
  if (like.imgs.defined()) batch.imgs = at::rand(like.imgs.sizes());
  if (like.heatmap_imgs.defined() && config.data.heatmap.draw_on == "device") {
    batch.joints = EmptyJoints(config, clips, config.data.crop, at::kFloat);
    batch.joints.tensor.uniform_();
  } else if (like.heatmap_imgs.defined()) {
    batch.heatmap_imgs = at::rand(like.heatmap_imgs.sizes());
  }
  batch.labels = at::zeros({clips}, at::kLong);
  batch.ids.resize(static_cast<size_t>(clips));
  return batch;
}

// Takes two real training steps on the CPU and returns the most tensor bytes that were alive at
// once in the second, when the optimizer has its state.
int64_t MeasuredPeak(const Config& config) {
  const int64_t before = CpuMemoryUse().current;
  const std::unique_ptr<Network> network = MakeNetwork(config.model, at::kFloat);
  InitialiseNetwork(*network, config.model, 1);
  network->Train(true);
  const std::string how = config.memory.recompute == "auto" ? "lean" : config.memory.recompute;
  network->SetRecompute(ParseRecompute(how, network->Segments(), ""));
  const auto optimizer = MakeOptimizer(config.train.optimizer, network->parameters());
  std::optional<Ema> ema;
  if (config.train.ema) ema.emplace(*network, config.train.ema_momentum);
  std::vector<Batch> waiting;
  for (int64_t i = 0; i < std::max<int64_t>(config.data.prefetch, 1); ++i) {
    waiting.push_back(RealBatch(config));
  }
  TrainStep step(*network, config, *optimizer, nullptr);
  for (int64_t iteration = 0; iteration < 2; ++iteration) {
    ResetPeak();
    int64_t left = config.train.accumulate;
    step.Run(iteration, 1e-6, [&](Batch* batch) {
      if (left-- == 0) return false;
      *batch = RealBatch(config);
      return true;
    });
  }
  return CpuMemoryUse().peak - before;
}

struct Case {
  std::string name;
  Config config;
};

Case Made(const std::string& name, Config config, int64_t clips) {
  config.train.batch_size = clips;
  return {name, config};
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* type : {"rgb", "pose", "rgbpose", "rgbpose_attention"}) {
    for (const int64_t clips : {1, 4}) cases.push_back(Made(type, SmallConfig(type), clips));
  }
  for (const char* recompute : {"none", "light", "block", "stage", "full",
                                "light rgb.layer1=full pose.layer2=lean rgb.stem=block"}) {
    Config config = SmallConfig("rgbpose");
    config.memory.recompute = recompute;
    cases.push_back(Made(std::string("rgbpose, ") + recompute, config, 3));
  }
  for (const char* type : {"rgbpose", "rgbpose_attention"}) {
    Config config = SmallConfig(type);
    config.train.precision = "bf16";
    cases.push_back(Made(std::string(type) + ", bf16", config, 3));
    config.memory.recompute = "none";
    cases.push_back(Made(std::string(type) + ", bf16, none", config, 3));
  }
  Config longer = SmallConfig("rgbpose");
  longer.data.rgb_frames = 4;
  longer.data.pose_frames = 16;
  cases.push_back(Made("rgbpose, 4 + 16 frames", longer, 3));
  Config larger = SmallConfig("rgb");
  larger.data.crop = 96;
  cases.push_back(Made("rgb, crop 96", larger, 2));
  Config accumulating = SmallConfig("rgbpose");
  accumulating.train.accumulate = 3;
  cases.push_back(Made("rgbpose, 3 accumulated", accumulating, 2));
  Config adamw = SmallConfig("pose");
  adamw.train.optimizer.type = "adamw";
  adamw.train.ema = true;
  cases.push_back(Made("pose, AdamW, EMA", adamw, 4));
  Config wide = SmallConfig("pose");
  wide.model.pose.base_channels = 32;
  wide.data.prefetch = 0;
  cases.push_back(Made("pose, 32 channels, no prefetch", wide, 2));
  Config odd = SmallConfig("rgb");
  odd.model.rgb.base_channels = 12;  // no multiple of oneDNN's blocks
  cases.push_back(Made("rgb, 12 channels", odd, 2));
  Config drawing = SmallConfig("rgbpose");
  drawing.data.heatmap.draw_on = "device";
  cases.push_back(Made("rgbpose, joints drawn in the step", drawing, 3));
  drawing.data.limbs = {{0, 1}, {1, 2}, {2, 3}};
  drawing.data.heatmap.with_limbs = true;
  drawing.data.heatmap.scaling = 1;
  drawing.data.prefetch = 5;
  drawing.model.type = "pose";
  cases.push_back(Made("pose, joints and limbs drawn in the step", drawing, 2));
  return cases;
}

// oneDNN 3 computes bfloat16 with the matrix units that some processors have, in less memory than
// is foreseen (docs/libtorch.md).
bool HasMatrixUnits() {
  std::ifstream info("/proc/cpuinfo");
  const std::string text(std::istreambuf_iterator<char>(info), {});
  return text.find("amx_bf16") != std::string::npos;
}

void ExpectPredicted(const char* what, const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const int64_t predicted = RehearseStep(c.config).peak;
    const int64_t measured = MeasuredPeak(c.config);
    const double error = static_cast<double>(predicted - measured) / static_cast<double>(measured);
    std::printf("%-10s %-40s batch %ld: predicted %9ld KiB, measured %9ld KiB, %+.3f %%\n", what,
                c.name.c_str(), static_cast<long>(c.config.train.batch_size),
                static_cast<long>(predicted / 1024), static_cast<long>(measured / 1024),
                100 * error);
    std::fflush(stdout);
    const bool less = kBringsOneDnn3 && c.config.train.precision == "bf16" && HasMatrixUnits();
    EXPECT_LT(error, less ? 0.1 : 0.01) << c.name;
    EXPECT_GT(error, -0.01) << c.name;
  }
}

TEST(Rehearsal, PredictsTheMeasuredPeakOnOneThread) {
  at::set_num_threads(1);
  ExpectPredicted("1 thread", Cases());
}

// oneDNN chooses other layouts and scratch on several threads.
TEST(Rehearsal, PredictsTheMeasuredPeakOnTwoThreads) {
  at::set_num_threads(2);
  ExpectPredicted("2 threads", {Made("pose", SmallConfig("pose"), 2)});
  at::set_num_threads(1);
}

// Nothing as large as what is drawn comes and goes beside it.
TEST(DeviceHeatmaps, TakeLittleMemoryBesideThemselves) {
  Config config;
  config.data.heatmap.scaling = 0.25;
  config.data.limbs = {{0, 1}, {1, 2}, {2, 3}};
  for (const bool limbs : {false, true}) {
    config.data.heatmap.with_limbs = limbs;
    config.model.pose.in_channels = limbs ? 20 : 17;
    Batch batch;
    batch.joints = EmptyJoints(config, 8, config.data.crop, at::kFloat);
    batch.joints.tensor.uniform_();
    const int64_t before = CpuMemoryUse().current;
    ResetPeak();
    const at::Tensor drawn = HeatmapsOn(batch, config.data, at::kCPU);
    const auto size = static_cast<int64_t>(drawn.nbytes());
    std::printf("heatmaps of 8 clips: %ld KiB, at the peak %ld KiB\n",
                static_cast<long>(size / 1024),
                static_cast<long>((CpuMemoryUse().peak - before) / 1024));
    EXPECT_LT(CpuMemoryUse().peak - before, size + size / 4);
  }
}

TEST(Rehearsal, RolesAddUpToThePeak) {
  Config config = SmallConfig("rgbpose");
  const Rehearsal r = RehearseStep(config);
  EXPECT_EQ(r.weights + r.gradients + r.optimizer + r.input + r.prefetch + r.saved + r.temporaries +
                r.workspace,
            r.peak);
  EXPECT_GT(r.weights, 0);
  EXPECT_GE(r.weights, r.optimizer);  // buffers have no momentum
  EXPECT_GT(r.optimizer, r.weights * 9 / 10);
  EXPECT_EQ(*std::max_element(r.curve.begin(), r.curve.end()), r.peak);
  EXPECT_GT(r.validation_peak, 0);
  ASSERT_FALSE(r.layers.empty());
  int64_t layers = 0;
  for (const Rehearsal::Layer& layer : r.layers) layers += layer.bytes;
  EXPECT_LE(layers, r.saved + r.temporaries + r.workspace);
  EXPECT_GT(layers, r.saved / 2);
}

TEST(Rehearsal, FullSizeNetworkIsRehearsedInAFractionOfASecond) {
  Config config;
  config.data.heatmap.scaling = 0.25;
  config.train.batch_size = 20;
  RehearseStep(config);
  const Rehearsal r = RehearseStep(config);
  std::printf("full-size RGBPoseConv3D, batch 20: %.2f GiB, rehearsed in %.3f s\n",
              static_cast<double>(r.peak) / (1 << 30), r.seconds);
  EXPECT_LT(r.seconds, 2);  // the aim is 0.2 s; a loaded machine must not fail the test
  EXPECT_GT(r.peak, int64_t{10} << 30);
}

TEST(Rehearsal, RefusesAClipThatIsTooSmall) {
  Config config = SmallConfig("rgb");
  config.data.crop = 0;
  EXPECT_THROW(RehearseStep(config), Error);
}

TEST(LargestFitting, FindsTheEdgeOfAnyGrowingFunction) {
  for (const int64_t edge : {0, 1, 2, 7, 63, 64}) {
    int asked = 0;
    const auto peak = [&](int64_t batch) {
      ++asked;
      return 1000 + batch * 100 + (batch > 3 ? 250 : 0) + batch * batch;
    };
    const int64_t budget = edge == 0 ? 1000 : peak(edge);
    asked = 0;
    EXPECT_EQ(LargestFitting(peak, budget, 64), edge);
    EXPECT_LE(asked, 12) << edge;
  }
}

}  // namespace
}  // namespace kinefit
