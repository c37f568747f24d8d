// Predicted against measured peak of training steps on the CPU: networks, batches, clip sizes,
// accumulation, recomputation and precision, up to the full-size network.
//
//   rehearsal_bench [--small] [--full]      (both if neither is given)

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memory/cpu_allocator.h"
#include "model/describe.h"
#include "model/network.h"
#include "train/ema.h"
#include "train/optimizer.h"
#include "train/step.h"
#include "train/step_rehearsal.h"

namespace kinefit {
namespace {

Batch RealBatch(const Config& config) {
  const int64_t clips = config.train.batch_size;
  const NetworkInput like = TrainingInputOnMeta(config, clips);
  Batch batch;
  if (like.imgs.defined()) batch.imgs = at::rand(like.imgs.sizes());
  if (like.heatmap_imgs.defined()) batch.heatmap_imgs = at::rand(like.heatmap_imgs.sizes());
  batch.labels = at::zeros({clips}, at::kLong);
  batch.ids.resize(static_cast<size_t>(clips));
  return batch;
}

// One network that takes real steps in many ways; its first step makes the optimizer's state.
class Subject {
 public:
  explicit Subject(const Config& config)
      : before_(CpuMemoryUse().current),
        config_(config),
        network_(MakeNetwork(config.model, at::kFloat)),
        optimizer_(MakeOptimizer(config.train.optimizer, network_->parameters())) {
    InitialiseNetwork(*network_, config.model, 1);
    network_->Train(true);
    if (config.train.ema) ema_.emplace(*network_, config.train.ema_momentum);
    Config first = config;
    first.train.batch_size = 1;
    first.train.accumulate = 1;
    Measure(first);
  }

  int64_t Measure(const Config& config) {
    config_ = config;
    network_->SetRecompute(ParseRecompute(config.memory.recompute, network_->Segments(), ""));
    std::vector<Batch> waiting;
    for (int64_t i = 0; i < std::max<int64_t>(config.data.prefetch, 1); ++i) {
      waiting.push_back(RealBatch(config));
    }
    TrainStep step(*network_, config_, *optimizer_, nullptr);
    ResetPeak();
    int64_t left = config.train.accumulate;
    step.Run(0, 1e-6, [&](Batch* batch) {
      if (left-- == 0) return false;
      *batch = RealBatch(config);
      return true;
    });
    return CpuMemoryUse().peak - before_;
  }

 private:
  int64_t before_;
  Config config_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Optimizer> optimizer_;
  std::optional<Ema> ema_;
};

class Table {
 public:
  void Add(const std::string& name, const Config& config, int64_t measured) {
    const int64_t predicted = RehearseStep(config).peak;
    const double error =
        100 * static_cast<double>(predicted - measured) / static_cast<double>(measured);
    errors_.push_back(error);
    std::printf("%-10s batch %ld x %ld crop %3ld %-5s %-42s %10.1f %10.1f MiB %+8.3f %%\n",
                name.c_str(), static_cast<long>(config.train.batch_size),
                static_cast<long>(config.train.accumulate), static_cast<long>(config.data.crop),
                config.train.precision.c_str(), config.memory.recompute.c_str(),
                static_cast<double>(predicted) / 0x1p20, static_cast<double>(measured) / 0x1p20,
                error);
    std::fflush(stdout);
  }
  void Conclude() const {
    if (errors_.empty()) return;
    std::vector<double> absolute;
    for (const double error : errors_) absolute.push_back(std::abs(error));
    std::sort(absolute.begin(), absolute.end());
    std::printf(
        "\n%zu configurations: median |error| %.3f %%, largest %.3f %%, most under %.3f %%\n",
        errors_.size(), absolute[absolute.size() / 2], absolute.back(),
        std::min(0.0, *std::min_element(errors_.begin(), errors_.end())));
  }

 private:
  std::vector<double> errors_;
};

const std::vector<std::string>& Ways() {
  static const auto* const ways =
      new std::vector<std::string>{"none", "lean", "light", "block", "stage", "full"};
  return *ways;
}

// Every network with every way of recomputing and every batch; the other settings take turns.
void Small(Table* table) {
  int turn = 0;
  for (const char* type : {"rgb", "pose", "rgbpose", "pcan"}) {
    for (const std::string& way : Ways()) {
      for (const int64_t clips : {1, 2, 5, 8}) {
        Config config;
        config.model.type = type;
        config.model.num_classes = 10;
        config.model.rgb.base_channels = turn % 5 == 0 ? 24 : 16;
        config.model.pose.base_channels = turn % 5 == 0 ? 12 : 8;
        config.data.crop = turn % 3 == 0 ? 96 : 64;
        config.data.heatmap.scaling = 0.25;
        config.train.batch_size = clips;
        config.train.accumulate = turn % 4 == 1 ? 3 : 1;
        config.train.precision = turn % 7 == 2 ? "bf16" : "fp32";
        config.train.ema = turn % 2 == 1;
        config.train.optimizer.type = turn % 3 == 1 ? "adamw" : "sgd";
        config.memory.recompute = way;
        table->Add(type, config, Subject(config).Measure(config));
        ++turn;
      }
    }
  }
}

void FullSize(Table* table) {
  for (const char* type : {"rgbpose", "pcan"}) {
    Config config;
    config.model.type = type;
    config.data.heatmap.scaling = 0.25;
    config.memory.recompute = "lean";
    Subject subject(config);
    const auto add = [&](int64_t clips, const std::string& way, int64_t crop, int64_t accumulate) {
      config.train.batch_size = clips;
      config.train.accumulate = accumulate;
      config.data.crop = crop;
      config.memory.recompute = way;
      table->Add(std::string("full ") + (type[0] == 'p' ? "pcan" : "rgbp"), config,
                 subject.Measure(config));
    };
    for (const std::string& way : Ways()) add(1, way, 224, 1);
    add(2, "lean", 224, 1);
    add(2, "full", 224, 1);
    add(4, "lean", 160, 1);
    add(1, "light rgb.layer1=block pose.layer2=lean", 224, 2);
    if (type[0] == 'r') add(8, "lean", 224, 1);
  }
}

}  // namespace
}  // namespace kinefit

int main(int argc, char** argv) {
  kinefit::InstallCpuAllocator();
  bool small = argc == 1;
  bool full = argc == 1;
  for (int i = 1; i < argc; ++i) {
    small |= std::strcmp(argv[i], "--small") == 0;
    full |= std::strcmp(argv[i], "--full") == 0;
  }
  kinefit::Table table;
  try {
    std::printf("%d threads\n", at::get_num_threads());
    if (small) kinefit::Small(&table);
    if (full) kinefit::FullSize(&table);
    table.Conclude();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rehearsal_bench: %s\n", error.what());
    return 2;
  }
}
