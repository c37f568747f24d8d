// What a step promises about memory: all or nothing where it runs out, nothing left behind, and the
// same gradients however it is cut into micro-batches and whatever is recomputed.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "loader/device_heatmaps.h"
#include "memory/allocation_faults.h"
#include "memory/cpu_allocator.h"
#include "model/describe.h"
#include "model/network.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace kinefit {
namespace {

// The tensors of an optimizer's state.
std::vector<at::Tensor> TensorsOf(const Optimizer& optimizer) {
  std::vector<at::Tensor> tensors;
  for (const auto& [name, slots] : optimizer.State()) {
    for (const auto& [slot, value] : slots.AsDict(name)) {
      if (const auto* tensor = std::get_if<at::Tensor>(&value.value())) tensors.push_back(*tensor);
    }
  }
  return tensors;
}

// Everything a step may change, flattened: weights, statistics, optimizer state.
std::vector<at::Tensor> Snapshot(const Network& network, const Optimizer& optimizer) {
  std::vector<at::Tensor> result;
  for (const NamedTensor& entry : network.StateDict()) {
    result.push_back(entry.tensor.detach().clone());
    EXPECT_FALSE(entry.tensor.grad().defined()) << entry.name;
  }
  for (const at::Tensor& tensor : TensorsOf(optimizer)) result.push_back(tensor.clone());
  return result;
}

void ExpectEqual(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_TRUE(at::equal(a[i], b[i])) << i;
}

// Two steps of a small two-stream network, the second with the optimizer's state in place.
class StepUnderTest {
 public:
  explicit StepUnderTest(const std::string& optimizer, const std::string& recompute) {
    config_.model.type = "rgbpose_attention";
    config_.model.num_classes = 5;
    config_.model.rgb.base_channels = 8;
    config_.model.pose.base_channels = 4;
    config_.data.crop = 32;
    config_.data.heatmap.scaling = 0.25;
    config_.train.accumulate = 2;
    config_.train.batch_size = 1;
    config_.train.optimizer.type = optimizer;
    config_.train.optimizer.clip_norm = 1;
    network_ = MakeNetwork(config_.model, at::kFloat);
    InitialiseNetwork(*network_, config_.model, 3);
    network_->Train(true);
    network_->SetRecompute(ParseRecompute(recompute, network_->Segments(), ""));
    optimizer_ = MakeOptimizer(config_.train.optimizer, network_->parameters());
    step_ = std::make_unique<TrainStep>(*network_, config_, *optimizer_, nullptr);
    const NetworkInput like = TrainingInputOnMeta(config_, 1);
    at::manual_seed(1);
    for (int i = 0; i < 2; ++i) {
      Batch batch;
      batch.imgs = at::rand(like.imgs.sizes());
      batch.heatmap_imgs = at::rand(like.heatmap_imgs.sizes());
      batch.labels = at::full({1}, i, at::kLong);
      batch.ids = {"clip"};
      batches_.push_back(batch);
    }
  }
  // From now on the step draws its heatmaps, of joints and limbs.
  void DrawHeatmaps() {
    config_.data.limbs = {{0, 1}, {3, 4}};
    config_.data.heatmap.with_limbs = true;
    for (Batch& batch : batches_) {
      const auto i = batch.labels.item<int64_t>();
      batch.joints = EmptyJoints(config_, 1, config_.data.crop, at::kFloat);
      batch.joints.tensor.uniform_(0, 30 + static_cast<double>(i));
      batch.joints.tensor.select(2, 2).uniform_();
      batch.heatmap_imgs = at::Tensor();
    }
  }
  // What the step then draws, drawn beforehand.
  void UseDrawnHeatmaps() {
    for (Batch& batch : batches_) {
      batch.heatmap_imgs = HeatmapsOn(batch, config_.data, at::kCPU);
      batch.joints = {};
    }
  }
  StepResult Run(int64_t iteration) {
    size_t next = 0;
    return step_->Run(iteration, 0.01, [&](Batch* batch) {
      if (next == batches_.size()) return false;
      *batch = batches_[next++];
      return true;
    });
  }
  int64_t buffers() const { return static_cast<int64_t>(network_->buffers().size()); }
  std::vector<at::Tensor> Now() const { return Snapshot(*network_, *optimizer_); }

 private:
  Config config_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<TrainStep> step_;
  std::vector<Batch> batches_;
};

// Fails every `stride`-th allocation of two steps, one after the other, each time finding nothing
// changed; the step then done counts. Returns how many failed.
int64_t FailAllocationsOf(StepUnderTest* subject, int64_t stride) {
  int64_t failures = 0;
  for (int64_t iteration = 0; iteration < 2; ++iteration) {
    const std::vector<at::Tensor> before = subject->Now();
    for (int64_t n = 1;; n += stride) {
      FailAllocationAfter(n);
      bool failed = false;
      try {
        subject->Run(iteration);
      } catch (const c10::OutOfMemoryError&) {
        failed = true;
      }
      StopAllocationFaults();
      if (!failed) break;
      ++failures;
      ExpectEqual(subject->Now(), before);
      if (testing::Test::HasFatalFailure()) return failures;
    }
  }
  return failures;
}

TEST(TrainStepOutOfMemory, IsAllOrNothingAtEveryAllocation) {
  at::set_num_threads(1);  // with tensors this small threads only wait for each other
  for (const std::string optimizer : {"sgd", "adamw"}) {
    for (const std::string recompute : {"lean", "full"}) {
      SCOPED_TRACE(optimizer + " " + recompute);
      StepUnderTest undisturbed(optimizer, recompute);
      for (int64_t i = 0; i < 2; ++i) undisturbed.Run(i);
      StepUnderTest subject(optimizer, recompute);
      EXPECT_GT(FailAllocationsOf(&subject, 41), 100);
      ExpectEqual(subject.Now(), undisturbed.Now());
    }
  }
}

TEST(TrainStepOutOfMemory, DrawingHeatmapsIsPartOfTheStep) {
  StepUnderTest drawn("sgd", "lean");
  drawn.DrawHeatmaps();
  drawn.UseDrawnHeatmaps();
  StepUnderTest subject("sgd", "lean");
  subject.DrawHeatmaps();
  // The same bits as from heatmaps, each allocation of the drawing having failed once.
  const std::vector<at::Tensor> before = subject.Now();
  const int64_t first = subject.buffers() + 1;  // behind the copies of the statistics
  for (int64_t n = first; n < first + 100; ++n) {
    FailAllocationAfter(n);
    EXPECT_THROW(subject.Run(0), c10::OutOfMemoryError);
    EXPECT_EQ(StopAllocationFaults(), 1);
    ExpectEqual(subject.Now(), before);
  }
  for (int64_t i = 0; i < 2; ++i) EXPECT_EQ(drawn.Run(i).loss, subject.Run(i).loss);
  ExpectEqual(subject.Now(), drawn.Now());
}

// Memory that a failed step leaves behind would be missing in the next.
TEST(TrainStepOutOfMemory, LeavesNoMemoryBehind) {
  StepUnderTest subject("sgd", "light");
  subject.Run(0);
  const int64_t before = CpuMemoryUse().current;
  for (int64_t n = 5; n < 400; n += 50) {
    FailAllocationAfter(n);
    EXPECT_THROW(subject.Run(1), c10::OutOfMemoryError);
    EXPECT_EQ(StopAllocationFaults(), 1);
    EXPECT_EQ(CpuMemoryUse().current, before) << n;
  }
}

// The gradients of one step over `clips` clips as micro-batches of `size`, statistics frozen.
std::vector<at::Tensor> FrozenGradients(int64_t clips, int64_t size, const std::string& recompute,
                                        at::ScalarType type) {
  Config config;
  config.model.type = "rgbpose_attention";
  config.model.num_classes = 5;
  config.model.rgb.base_channels = 8;
  config.model.pose.base_channels = 4;
  config.data.crop = 32;
  config.data.heatmap.scaling = 0.25;
  config.train.batch_size = size;
  config.train.accumulate = clips / size;
  const auto network = MakeNetwork(config.model, type);
  InitialiseNetwork(*network, config.model, 3);
  network->Train(false);
  for (const NamedTensor& entry : network->parameters()) {  // nothing at zero: everything has a
    const at::NoGradGuard no_grad;                          // gradient
    if (entry.tensor.eq(0).all().item<bool>()) at::Tensor(entry.tensor).fill_(0.5);
  }
  network->SetRecompute(ParseRecompute(recompute, network->Segments(), ""));
  const auto optimizer = MakeOptimizer(config.train.optimizer, network->parameters());
  TrainStep step(*network, config, *optimizer, nullptr);
  at::manual_seed(1);
  const NetworkInput like = TrainingInputOnMeta(config, clips);
  const at::Tensor imgs = at::rand(like.imgs.sizes()).to(type);
  const at::Tensor heatmaps = at::rand(like.heatmap_imgs.sizes()).to(type);
  int64_t first = 0;
  step.Run(0, 0, [&](Batch* batch) {
    if (first == clips) return false;
    batch->imgs = imgs.narrow(0, first, size);
    batch->heatmap_imgs = heatmaps.narrow(0, first, size);
    batch->labels = at::arange(first, first + size) % 5;
    batch->ids.resize(static_cast<size_t>(size));
    first += size;
    return true;
  });
  // The first momentum is the gradient (weight decay is off).
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& tensor : TensorsOf(*optimizer)) gradients.push_back(tensor.flatten());
  return gradients;
}

// Down to single clips, and in float64 against the plain composition too.
TEST(Gradients, OfMicroBatchesAndRecomputationAreThoseOfTheWholeBatch) {
  at::set_num_threads(1);
  const auto distance = [](const std::vector<at::Tensor>& got,
                           const std::vector<at::Tensor>& want) {
    const at::Tensor exact = at::cat(want).to(at::kDouble);
    return ((at::cat(got).to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
  };
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const std::vector<at::Tensor> lean = FrozenGradients(8, 8, "lean", type);
    ASSERT_GT(lean.size(), 100U);
    if (type == at::kDouble) {
      EXPECT_LE(distance(lean, FrozenGradients(8, 8, "none", type)), 1e-12);
    }
    for (const std::string recompute : {"lean", "light", "block", "stage", "full"}) {
      ExpectEqual(FrozenGradients(8, 8, recompute, type), lean);
      for (const int64_t size : {4, 2, 1}) {
        const double error = distance(FrozenGradients(8, size, recompute, type), lean);
        std::printf("%s, 8 clips as %ld x %ld, recompute %-6s: relative difference %.2g\n",
                    at::toString(type), static_cast<long>(size), static_cast<long>(8 / size),
                    recompute.c_str(), error);
        EXPECT_LE(error, 1e-6);
      }
    }
  }
}

}  // namespace
}  // namespace kinefit
