// Predicted against measured peak of training steps on the CPU: networks, batches, clip sizes,
// accumulation, recomputation and precision, up to the full-size network.
//
//   rehearsal_bench [--small] [--full]      (both if neither is given)

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "memory/cpu_allocator.h"
#include "train/measure_step.h"
#include "train/step_rehearsal.h"

namespace kinefit {
namespace {

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
  for (const char* type : {"rgb", "pose", "rgbpose", "rgbpose_attention"}) {
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
        table->Add(type, config, MeasuredNetwork(config).Step(config).peak);
        ++turn;
      }
    }
  }
}

void FullSize(Table* table) {
  for (const char* type : {"rgbpose", "rgbpose_attention"}) {
    Config config;
    config.model.type = type;
    config.data.heatmap.scaling = 0.25;
    config.memory.recompute = "lean";
    MeasuredNetwork subject(config);
    const auto add = [&](int64_t clips, const std::string& way, int64_t crop, int64_t accumulate) {
      config.train.batch_size = clips;
      config.train.accumulate = accumulate;
      config.data.crop = crop;
      config.memory.recompute = way;
      table->Add(std::string("full ") + (type[0] == 'p' ? "rgbpose_attention" : "rgbp"), config,
                 subject.Step(config).peak);
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
