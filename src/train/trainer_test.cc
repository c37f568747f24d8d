#include "train/trainer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "checkpoint/checkpoint.h"
#include "config/options.h"
#include "files/error.h"
#include "files/publish.h"
#include "memory/allocation_faults.h"
#include "memory/cpu_allocator.h"
#include "train/step_rehearsal.h"

namespace kinefit {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kClasses = 3;
constexpr int64_t kJoints = 3;

// A clip of `frames` frames in which three joints wander about as the label says.
Sample MakeSample(int64_t number) {
  constexpr int64_t kFrames = 8;
  Sample sample;
  sample.id = "clip" + std::to_string(number);
  sample.label = number % kClasses;
  sample.width = sample.height = 64;
  sample.total_frames = kFrames;
  sample.pose.persons = 1;
  sample.pose.frames = kFrames;
  sample.pose.joints = kJoints;
  for (int64_t t = 0; t < kFrames; ++t) {
    for (int64_t v = 0; v < kJoints; ++v) {
      const double phase = static_cast<double>(t * (sample.label + 1) + 2 * v + number);
      sample.pose.xy.push_back(static_cast<float>(32 + 24 * std::sin(phase)));
      sample.pose.xy.push_back(static_cast<float>(32 + 24 * std::cos(phase)));
      sample.pose.score.push_back(1);
    }
  }
  return sample;
}

Dataset MakeDataset(int64_t samples) {
  Dataset set;
  for (int64_t i = 0; i < samples; ++i) set.samples.push_back(MakeSample(i));
  set.class_names = {"wave", "clap", "jump"};
  return set;
}

// 10 clips in batches of 2, two batches a step: 3 steps an epoch, the last one short.
Config MakeConfig(const std::string& work_dir) {
  Config config;
  config.seed = 5;
  config.model.type = "pose";
  config.model.num_classes = kClasses;
  PathwayConfig& pose = config.model.pose;
  pose.in_channels = kJoints;
  pose.base_channels = 4;
  pose.stage_blocks = {1, 1};
  pose.inflate = {0, 1};
  pose.spatial_strides = {2, 2};
  pose.temporal_strides = {1, 1};
  pose.lateral_activate = {};
  config.data.pose_frames = 4;
  config.data.resize = 20;
  config.data.crop = 16;
  config.data.test_size = 16;
  config.data.left_joints = {1};
  config.data.right_joints = {2};
  config.data.workers = 1;
  config.train.work_dir = work_dir;
  config.train.batch_size = 2;
  config.train.accumulate = 2;
  config.train.epochs = 3;
  config.train.ema = true;
  config.train.ema_momentum = 0.1;
  config.train.optimizer.lr = 0.05;
  ScheduleConfig cosine;
  cosine.per_iteration = true;
  config.train.schedule = {cosine};
  return config;
}

class Recorder : public TrainObserver {
 public:
  void OnMessage(const std::string& text) override { messages.push_back(text); }
  void OnStep(const StepReport& report) override {
    steps.push_back(report);
    if (on_step) on_step(report);
  }
  void OnValidation(int64_t epoch, const ValidationResult& /*result*/, bool best) override {
    validations.emplace_back(epoch, best);
  }
  void OnCheckpoint(const std::string& path) override {
    checkpoints.push_back(fs::path(path).filename().string());
  }
  bool Said(const std::string& part) const {
    return std::any_of(messages.begin(), messages.end(), [&](const std::string& message) {
      return message.find(part) != std::string::npos;
    });
  }

  std::function<void(const StepReport&)> on_step;
  std::vector<std::string> messages;
  std::vector<StepReport> steps;
  std::vector<std::pair<int64_t, bool>> validations;
  std::vector<std::string> checkpoints;
};

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() : set_(MakeDataset(10)) {
    const char* base = std::getenv("TMPDIR");
    std::string pattern = std::string(base == nullptr ? "/tmp" : base) + "/kinefit-train-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw Error("no temporary folder", pattern);
    folder_ = pattern;
  }
  ~TrainerTest() override {
    std::error_code unused;
    fs::remove_all(folder_, unused);
  }

  Config ConfigIn(const std::string& name) const { return MakeConfig(folder_ + "/" + name); }

  TrainResult Run(const Config& config, TrainObserver& observer) {
    const auto network = MakeNetwork(config.model, at::TensorOptions());
    InitialiseNetwork(*network, config.model, static_cast<uint64_t>(config.seed));
    return Train(*network, config, set_, validate_, DumpConfig(config), observer, &interrupted_);
  }
  TrainResult Run(const Config& config) {
    Recorder recorder;
    return Run(config, recorder);
  }
  // Validation i returns the i-th score.
  void ValidateWith(std::vector<double> scores) {
    auto next = std::make_shared<size_t>(0);
    validate_ = [scores = std::move(scores), next](Network&, const Config&) {
      ValidationResult result;
      result.fused_top1 = scores.at((*next)++);
      return result;
    };
  }
  std::vector<std::string> Files(const std::string& name) const {
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(folder_ + "/" + name)) {
      files.push_back(entry.path().filename().string());
    }
    std::sort(files.begin(), files.end());
    return files;
  }

  std::string folder_;
  Dataset set_;
  Validator validate_;
  std::atomic<bool> interrupted_{false};
};

using FileNames = std::vector<std::string>;

// All tensors below `value`, with their paths.
void Collect(const CheckpointValue& value, const std::string& path,
             std::vector<std::pair<std::string, at::Tensor>>* out) {
  if (const auto* tensor = std::get_if<at::Tensor>(&value.value()))
    out->emplace_back(path, *tensor);
  if (const auto* dict = std::get_if<CheckpointDict>(&value.value())) {
    for (const auto& [key, member] : *dict) Collect(member, path + "/" + key, out);
  }
}

void ExpectSameBits(const std::string& one, const std::string& two) {
  std::vector<std::pair<std::string, at::Tensor>> a;
  std::vector<std::pair<std::string, at::Tensor>> b;
  Collect(ReadCheckpoint(one), "", &a);
  Collect(ReadCheckpoint(two), "", &b);
  ASSERT_EQ(a.size(), b.size());
  ASSERT_GT(a.size(), 30U);  // weights, averages, momenta
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].first, b[i].first);
    EXPECT_TRUE(at::equal(a[i].second, b[i].second)) << a[i].first;
  }
}

TEST_F(TrainerTest, AResumedRunEndsWithTheSameBits) {
  Recorder whole;
  const TrainResult want = Run(ConfigIn("whole"), whole);
  EXPECT_EQ(want.end, TrainEnd::kFinished);
  EXPECT_EQ(want.iterations, 9);
  ASSERT_EQ(whole.steps.size(), 9U);
  EXPECT_EQ(whole.steps[2].samples, 2);  // the short last group
  for (const int64_t stop : {1, 3, 5}) {
    const Config config = ConfigIn("stop" + std::to_string(stop));
    Recorder recorder;
    recorder.on_step = [&](const StepReport& report) { interrupted_ = report.iteration == stop; };
    const TrainResult cut = Run(config, recorder);
    EXPECT_EQ(cut.end, TrainEnd::kInterrupted);
    EXPECT_EQ(cut.iterations, stop);
    EXPECT_EQ(fs::path(cut.last_checkpoint).filename(),
              stop == 3 ? "epoch_1.pth" : "iter_" + std::to_string(stop) + ".pth");
    interrupted_ = false;
    recorder.on_step = nullptr;
    const TrainResult got = Run(config, recorder);
    EXPECT_EQ(got.end, TrainEnd::kFinished);
    EXPECT_TRUE(recorder.Said("resumed from " + cut.last_checkpoint));
    ExpectSameBits(want.last_checkpoint, got.last_checkpoint);
    ASSERT_EQ(recorder.steps.size(), 9U);
    for (size_t i = 0; i < 9; ++i) {
      EXPECT_EQ(recorder.steps[i].loss, whole.steps[i].loss) << i;
      EXPECT_EQ(recorder.steps[i].lr, whole.steps[i].lr) << i;
      EXPECT_EQ(recorder.steps[i].top1, whole.steps[i].top1) << i;
    }
  }
}

TEST_F(TrainerTest, AKilledRunEndsWithTheSameBits) {
  Config config = ConfigIn("whole");
  config.train.optimizer.type = "adamw";
  config.train.optimizer.lr = 0.001;
  const TrainResult want = Run(config);
  config.train.work_dir = folder_ + "/killed";
  config.train.checkpoint_every = 2;
  for (const int64_t death : {5, 8}) {
    Recorder recorder;
    recorder.on_step = [&](const StepReport& report) {
      if (report.iteration == death) throw std::runtime_error("killed");
    };
    EXPECT_THROW(Run(config, recorder), std::runtime_error);
  }
  const TrainResult got = Run(config);
  EXPECT_EQ(got.end, TrainEnd::kFinished);
  ExpectSameBits(want.last_checkpoint, got.last_checkpoint);
}

TEST_F(TrainerTest, DamagedCheckpointsArePassedOver) {
  Config config = ConfigIn("run");
  const TrainResult want = Run(config);
  config.train.work_dir = folder_ + "/damaged";
  config.train.keep_last = 0;
  config.train.epochs = 3;
  Run(config);
  fs::resize_file(config.train.work_dir + "/epoch_3.pth", 1000);
  Recorder recorder;
  const TrainResult got = Run(config, recorder);
  EXPECT_TRUE(recorder.Said("passed over"));
  EXPECT_EQ(recorder.steps.size(), 3U);
  ExpectSameBits(want.last_checkpoint, got.last_checkpoint);
}

TEST_F(TrainerTest, AnInterruptedValidationIsDoneAgain) {
  const Config config = ConfigIn("run");
  int validations = 0;
  validate_ = [&](Network&, const Config&) -> ValidationResult {
    if (++validations == 2) {
      interrupted_ = true;
      throw std::runtime_error("abandoned");
    }
    return {validations * 0.1, {}};
  };
  Recorder recorder;
  EXPECT_EQ(Run(config, recorder).end, TrainEnd::kInterrupted);
  EXPECT_EQ(recorder.validations, (std::vector<std::pair<int64_t, bool>>{{0, true}}));
  interrupted_ = false;
  const TrainResult result = Run(config, recorder);
  EXPECT_EQ(result.end, TrainEnd::kFinished);
  EXPECT_EQ(recorder.validations,
            (std::vector<std::pair<int64_t, bool>>{{0, true}, {1, true}, {2, true}}));
  EXPECT_EQ(recorder.steps.size(), 9U);
}

TEST_F(TrainerTest, KeepsTheBestAndTheLastCheckpoints) {
  Config config = ConfigIn("run");
  config.train.epochs = 4;
  config.train.keep_last = 2;
  ValidateWith({0.2, 0.7, 0.7, 0.3});
  Recorder recorder;
  const TrainResult result = Run(config, recorder);
  EXPECT_EQ(result.best_top1, 0.7);
  EXPECT_EQ(recorder.validations,
            (std::vector<std::pair<int64_t, bool>>{{0, true}, {1, true}, {2, false}, {3, false}}));
  EXPECT_EQ(Files("run"),
            (FileNames{"best.pth", "config.toml", "epoch_3.pth", "epoch_4.pth", "last.pth"}));
  const CheckpointDict best = ReadCheckpoint(result.best_checkpoint);
  const CheckpointValue root(best);
  EXPECT_EQ(root.Find("meta")->Find("epoch")->AsInt("epoch"), 2);
  EXPECT_EQ(root.Find("config")->AsString("config"), DumpConfig(config));
  EXPECT_EQ(root.Find("optimizer"), nullptr);
}

TEST_F(TrainerTest, ValidatesWithTheAveragedWeights) {
  Config config = ConfigIn("run");
  config.train.epochs = 1;
  at::Tensor seen;
  validate_ = [&](Network& network, const Config&) {
    seen = network.parameters()[0].tensor.detach().clone();
    return ValidationResult{0.5, {}};
  };
  const TrainResult result = Run(config);
  const CheckpointDict root = ReadCheckpoint(result.last_checkpoint);
  EXPECT_TRUE(at::equal(seen, StateDictOf(root, "f", true)[0].second));
  EXPECT_FALSE(at::equal(seen, StateDictOf(root, "f", false)[0].second));
}

TEST_F(TrainerTest, StopsEarlyAndStaysStopped) {
  Config config = ConfigIn("run");
  config.train.epochs = 10;
  config.train.early_stop = 2;
  ValidateWith({0.5, 0.4, 0.5});
  const TrainResult result = Run(config);
  EXPECT_EQ(result.end, TrainEnd::kEarlyStop);
  EXPECT_EQ(result.iterations, 9);
  Recorder recorder;
  EXPECT_EQ(Run(config, recorder).end, TrainEnd::kEarlyStop);
  EXPECT_TRUE(recorder.steps.empty());
  EXPECT_TRUE(recorder.Said("already finished"));
}

TEST_F(TrainerTest, AFinishedRunReturnsAtOnce) {
  Config config = ConfigIn("run");
  config.train.epochs = 1;
  ValidateWith({0.5});
  Run(config);
  Recorder recorder;
  TrainResult again = Run(config, recorder);
  EXPECT_EQ(again.end, TrainEnd::kFinished);
  EXPECT_EQ(again.best_top1, 0.5);
  EXPECT_TRUE(recorder.steps.empty());
  EXPECT_TRUE(recorder.Said("already finished"));
  // Asked for more, it goes on and says what is different.
  config.train.epochs = 2;
  ValidateWith({0.6});
  again = Run(config, recorder);
  EXPECT_EQ(again.iterations, 6);
  EXPECT_TRUE(recorder.Said("train.epochs: 1 -> 2"));
}

TEST_F(TrainerTest, IterationsMayEndWithinAnEpoch) {
  Config config = ConfigIn("run");
  config.train.iterations = 4;
  ValidateWith({0.1, 0.2});
  const TrainResult result = Run(config);
  EXPECT_EQ(result.iterations, 4);
  EXPECT_EQ(result.best_top1, 0.2);
  EXPECT_EQ(Files("run"), (FileNames{"best.pth", "config.toml", "iter_4.pth", "last.pth"}));
}

TEST_F(TrainerTest, NeverOverwritesAnotherRun) {
  Config config = ConfigIn("run");
  config.train.epochs = 1;
  Run(config);
  config.train.resume = "never";
  EXPECT_THROW(Run(config), Error);
  // An explicit checkpoint elsewhere must not mix two runs either.
  config.train.work_dir = folder_ + "/other";
  config.train.resume = "auto";
  const TrainResult other = Run(config);
  config.train.work_dir = folder_ + "/run";
  config.train.resume = other.last_checkpoint;
  EXPECT_THROW(Run(config), Error);
}

TEST_F(TrainerTest, RefusesAnotherNetworksCheckpoint) {
  Config config = ConfigIn("run");
  config.train.epochs = 1;
  Run(config);
  Config wider = config;
  wider.model.pose.base_channels = 8;
  EXPECT_THROW(Run(wider), Error);
  Config adamw = config;
  adamw.train.optimizer.type = "adamw";
  EXPECT_THROW(Run(adamw), Error);
}

TEST_F(TrainerTest, SaysWhatChangedAndKeepsThePosition) {
  Config config = ConfigIn("run");
  config.train.epochs = 2;
  Recorder first;
  first.on_step = [&](const StepReport& report) { interrupted_ = report.iteration == 4; };
  EXPECT_EQ(Run(config, first).end, TrainEnd::kInterrupted);
  interrupted_ = false;
  config.train.batch_size = 1;  // 5 steps an epoch; 4 clips into epoch 2 is step 2 of it
  config.seed = 6;
  Recorder recorder;
  EXPECT_EQ(Run(config, recorder).iterations, 10);
  EXPECT_EQ(recorder.steps.size(), 3U);
  EXPECT_TRUE(recorder.Said("train.batch_size: 2 -> 1"));
  EXPECT_TRUE(recorder.Said("seed: 5 -> 6"));
  EXPECT_TRUE(recorder.Said("iteration 4 counts as iteration 7"));
}

TEST_F(TrainerTest, StartsFromInitialWeights) {
  Config config = ConfigIn("first");
  config.train.epochs = 1;
  const TrainResult first = Run(config);
  config.train.work_dir = folder_ + "/second";
  config.train.init = first.last_checkpoint;
  config.train.ema = false;
  config.train.optimizer.lr = 0;
  Recorder recorder;
  const TrainResult second = Run(config, recorder);
  EXPECT_TRUE(recorder.Said("initial weights from " + first.last_checkpoint));
  const auto want = StateDictOf(ReadCheckpoint(first.last_checkpoint), "f", true);
  const auto got = StateDictOf(ReadCheckpoint(second.last_checkpoint), "f");
  EXPECT_TRUE(at::equal(got[0].second, want[0].second));

  config.train.work_dir = folder_ + "/third";
  config.train.init_pose = config.train.init;
  EXPECT_THROW(Run(config), Error);  // both init and init_pose
}

TEST_F(TrainerTest, NanStopsAndNamesTheSamples) {
  Config config = ConfigIn("run");
  config.train.optimizer.lr = 1e38;
  config.train.optimizer.clip_norm = 0;
  config.train.schedule.clear();
  try {
    Run(config);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(error.problem().find("no longer finite at iteration"), std::string::npos);
    EXPECT_NE(error.where().find("nan_batch_iter_"), std::string::npos);
    std::ifstream file(error.where().substr(error.where().find(folder_)));
    std::string id;
    EXPECT_TRUE(std::getline(file, id));
    EXPECT_EQ(id.compare(0, 4, "clip"), 0) << id;
  }
}

TEST_F(TrainerTest, NanSkippingHasALimit) {
  Config config = ConfigIn("run");
  config.train.optimizer.lr = 1e38;
  config.train.optimizer.clip_norm = 0;
  config.train.schedule.clear();
  config.train.nan_guard = "skip";
  config.train.max_skipped_steps = 2;
  Recorder recorder;
  EXPECT_THROW(Run(config, recorder), Error);
  ASSERT_GE(recorder.steps.size(), 3U);
  EXPECT_TRUE(recorder.steps.back().skipped);
  EXPECT_TRUE(recorder.steps[recorder.steps.size() - 2].skipped);
  EXPECT_FALSE(recorder.steps.front().skipped);
}

TEST_F(TrainerTest, ScalesTheLearningRateAndSaysSo) {
  Config config = ConfigIn("run");
  config.train.epochs = 1;
  config.train.base_batch_size = 16;
  config.train.schedule.clear();
  Recorder recorder;
  Run(config, recorder);
  EXPECT_NEAR(recorder.steps[0].lr, 0.05 * 4 / 16, 1e-15);
  EXPECT_TRUE(recorder.Said("learning rate scaled from 0.05 to 0.0125"));
}

TEST_F(TrainerTest, ReportsWhatAStepTook) {
  Config config = ConfigIn("run");
  config.train.epochs = 1;
  Recorder recorder;
  Run(config, recorder);
  const StepReport& report = recorder.steps.at(1);
  EXPECT_EQ(report.steps_per_epoch, 3);
  EXPECT_EQ(report.total_iterations, 3);
  EXPECT_EQ(report.samples, 4);
  EXPECT_GT(report.seconds, 0);
  EXPECT_LE(report.wait_seconds, report.seconds);
  EXPECT_GT(report.memory_bytes, 10 << 20);
  ASSERT_EQ(report.losses.size(), 1U);
  EXPECT_EQ(report.losses[0].first, "pose");
  EXPECT_NEAR(report.losses[0].second, report.loss, 1e-6);
  EXPECT_GT(report.grad_norm, 0);
}

TEST_F(TrainerTest, UnwritableWorkDirFailsBeforeTheFirstStep) {
  Config config = ConfigIn("run");
  config.train.work_dir = "/proc/kinefit";
  Recorder recorder;
  EXPECT_THROW(Run(config, recorder), Error);
  EXPECT_TRUE(recorder.steps.empty());
}

TEST_F(TrainerTest, AFullDiskLosesNoCheckpoint) {
  Config config = ConfigIn("run");
  const TrainResult want = Run(config);
  config.train.work_dir = folder_ + "/full";
  std::optional<ScopedFileFault> fault;
  Recorder recorder;
  recorder.on_step = [&](const StepReport& report) {
    if (report.iteration == 5) fault.emplace(1, ENOSPC);
  };
  EXPECT_THROW(Run(config, recorder), Error);
  fault.reset();
  EXPECT_EQ(Files("full"), (FileNames{"config.toml", "epoch_1.pth", "last.pth"}));
  ExpectSameBits(want.last_checkpoint, Run(config).last_checkpoint);
}

// A file that was copied or touched looks newer than it is.
TEST_F(TrainerTest, ResumesFromWhatLastPointsToWhateverTheClockSays) {
  Config config = ConfigIn("run");
  config.train.epochs = 2;
  config.train.keep_last = 5;
  Run(config);
  const std::string first = config.train.work_dir + "/epoch_1.pth";
  fs::last_write_time(first, fs::last_write_time(first) + std::chrono::hours(1));
  config.train.epochs = 3;
  Recorder recorder;
  Run(config, recorder);
  EXPECT_TRUE(recorder.Said("epoch_2.pth"));
  EXPECT_EQ(recorder.steps.size(), 3U);
}

class RecoveryTest : public TrainerTest {
 protected:
  // Trains with validation in which allocations fail.
  RecoveryTest() {
    validate_ = [](Network& network, const Config& config) {
      ValidationResult result;
      for (int64_t i = 0; i < 8; i += config.eval.batch_size) {
        network.Train(false);
        const at::NoGradGuard no_grad;
        RandomStream unused(0, "validation");
        NetworkInput input;
        input.heatmap_imgs = at::full({1, kJoints, 4, 16, 16}, 0.25);
        const NetworkOutput output = network.Forward(input, unused);
        result.fused_top1 = output.logits[0].second.sigmoid().mean().item<double>();
      }
      return result;
    };
  }
  // From the first step on, makes the `after`-th allocation and then every `every`-th fail.
  TrainResult RunWithFaults(const Config& config, const AllocationFault& fault,
                            Recorder* recorder) {
    recorder->on_step = [&](const StepReport& report) {
      if (report.iteration == 1) InjectAllocationFault(fault);
    };
    const TrainResult result = Run(config, *recorder);
    failures_ = StopAllocationFaults();
    return result;
  }
  int64_t failures_ = 0;
};

TEST_F(RecoveryTest, AStepIsRunAgainToTheSameBits) {
  const TrainResult whole = Run(ConfigIn("whole"));
  Recorder recorder;
  AllocationFault fault;
  fault.after = 50;
  fault.every = 701;
  const TrainResult result = RunWithFaults(ConfigIn("disturbed"), fault, &recorder);
  EXPECT_GT(failures_, 4);
  EXPECT_EQ(result.end, TrainEnd::kFinished);
  EXPECT_TRUE(recorder.Said("nothing of it was kept, the step is run again"));
  EXPECT_FALSE(recorder.Said("from this step on"));
  EXPECT_EQ(recorder.steps.size(), 9U);
  ExpectSameBits(whole.last_checkpoint, result.last_checkpoint);
}

// What every step asks for at least once more than there is.
TEST_F(RecoveryTest, GoesFromPlanToPlanAndKeepsTheLastOnResume) {
  Config config = ConfigIn("run");
  config.train.batch_size = 4;
  config.train.accumulate = 1;
  config.memory.recompute = "none";
  Recorder recorder;
  recorder.on_step = [&](const StepReport& report) {
    if (report.iteration != 1) return;
    const MemoryUse use = CpuMemoryUse();
    // Not what was measured, which depends on how far the loader was.
    const int64_t peak = RehearseStep(config).peak;
    SetMemoryBudget(use.current + (peak - use.current) * 3 / 4);
  };
  recorder.on_step = [&, set = recorder.on_step](const StepReport& report) {
    set(report);
    interrupted_ = report.iteration == 4;
  };
  const TrainResult cut = Run(config, recorder);
  interrupted_ = false;
  SetMemoryBudget(0);
  EXPECT_EQ(cut.end, TrainEnd::kInterrupted);
  EXPECT_TRUE(recorder.Said("from this step on: micro-batches of"));
  EXPECT_EQ(recorder.steps.back().samples + recorder.steps[2].samples,
            6);  // 4 and the last 2 of 10

  Recorder again;
  const TrainResult rest = Run(config, again);
  EXPECT_EQ(rest.end, TrainEnd::kFinished);
  EXPECT_EQ(rest.iterations, 9);
  EXPECT_TRUE(again.Said("its plan is kept: micro-batches of"));
}

TEST_F(RecoveryTest, StopsWithACheckpointWhenNothingIsLeft) {
  const TrainResult whole = Run(ConfigIn("whole"));
  const Config config = ConfigIn("run");
  Recorder recorder;
  recorder.on_step = [&](const StepReport& report) {
    if (report.iteration == 2) SetMemoryBudget(CpuMemoryUse().current + 1000);
  };
  std::string message;
  try {
    Run(config, recorder);
  } catch (const c10::OutOfMemoryError& error) {
    message = error.msg();
  }
  SetMemoryBudget(0);
  EXPECT_NE(message.find("no other plan of the same training needs less"), std::string::npos)
      << message;
  EXPECT_NE(message.find("everything up to this step is saved"), std::string::npos) << message;
  EXPECT_EQ(recorder.steps.size(), 2U);
  Recorder rest;
  Run(config, rest);
  EXPECT_EQ(rest.steps.size(), 7U);
}

TEST_F(RecoveryTest, AnExplicitPlanIsNotChanged) {
  Config config = ConfigIn("run");
  config.memory.plan = "as-written";
  Recorder recorder;
  AllocationFault fault;
  fault.after = 1;
  fault.every = 20;
  EXPECT_THROW(RunWithFaults(config, fault, &recorder), c10::OutOfMemoryError);
  StopAllocationFaults();
  EXPECT_FALSE(recorder.Said("from this step on"));
}

TEST_F(RecoveryTest, ValidationGoesOnWithFewerClips) {
  Config config = ConfigIn("run");
  config.eval.batch_size = 8;
  const Validator plain = validate_;
  std::vector<int64_t> sizes;
  validate_ = [&](Network& network, const Config& now) {
    sizes.push_back(now.eval.batch_size);
    if (now.eval.batch_size > 2) throw c10::OutOfMemoryError("out of memory: too many", {});
    return plain(network, now);
  };
  Recorder recorder;
  const TrainResult result = Run(config, recorder);
  EXPECT_EQ(result.end, TrainEnd::kFinished);
  EXPECT_EQ(sizes, (std::vector<int64_t>{8, 8, 4, 4, 2, 2, 2}));
  EXPECT_EQ(recorder.validations.size(), 3U);
  EXPECT_TRUE(recorder.Said("validating 2 clips at a time"));
}

}  // namespace
}  // namespace kinefit
