// Bytes per added clip and time of a training step of the full-size network for each way of
// recomputing, against the plain composition of ATen operations, paired in one run.
//
//   recompute_bench [CONFIG [SET...]] [--rounds N] [--clips N] [--threads N] [--ways none,lean,...]

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <sstream>
#include <thread>

#include "config/load.h"
#include "files/error.h"
#include "memory/cpu_allocator.h"
#include "model/describe.h"
#include "train/optimizer.h"
#include "train/step.h"

namespace kinefit {
namespace {

struct Measured {
  int64_t peak = 0;  // bytes of tensors beyond what was there before
  double seconds = 0;
};

// One network that takes steps in different ways.
class Subject {
 public:
  explicit Subject(const Config& config)
      : config_(config),
        network_(MakeNetwork(config.model, at::kFloat)),
        optimizer_(MakeOptimizer(config.train.optimizer, network_->parameters())) {
    InitialiseNetwork(*network_, config.model, 1);
    network_->Train(true);
  }

  std::vector<std::string> segments() const { return network_->Segments(); }

  Measured Step(const Recompute& recompute, int64_t clips) {
    network_->SetRecompute(recompute);
    config_.train.batch_size = clips;
    TrainStep step(*network_, config_, *optimizer_, nullptr);
    ResetPeak();
    const auto start = std::chrono::steady_clock::now();
    bool given = false;
    step.Run(0, 1e-6, [&](Batch* batch) {
      if (given) return false;
      const NetworkInput like = TrainingInputOnMeta(config_, clips);
      if (like.imgs.defined()) batch->imgs = at::rand(like.imgs.sizes());
      if (like.heatmap_imgs.defined()) batch->heatmap_imgs = at::rand(like.heatmap_imgs.sizes());
      batch->labels = at::zeros({clips}, at::kLong);
      batch->ids.resize(static_cast<size_t>(clips));
      given = true;
      return true;
    });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    return {CpuMemoryUse().peak, elapsed.count()};
  }

 private:
  Config config_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Optimizer> optimizer_;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int Run(const Config& config, int rounds, int64_t clips, const std::vector<std::string>& ways) {
  Subject subject(config);
  const double gib = 0x1p30;
  std::map<std::string, int64_t> one;
  std::map<std::string, int64_t> two;
  std::map<std::string, std::vector<double>> ratios;
  std::map<std::string, std::vector<double>> seconds;
  const auto way = [&](const std::string& text) {
    return ParseRecompute(text, subject.segments(), "--ways");
  };
  subject.Step(way("lean"), 1);
  for (const std::string& text : ways) {
    one[text] = subject.Step(way(text), clips).peak;
    two[text] = subject.Step(way(text), clips + 1).peak;
    std::printf("%-44s %8.3f GiB per added clip (%.3f at %d)\n", text.c_str(),
                static_cast<double>(two[text] - one[text]) / gib,
                static_cast<double>(one[text]) / gib, static_cast<int>(clips));
    std::fflush(stdout);
  }
  for (int round = 0; round < rounds; ++round) {
    double reference = 0;
    for (const std::string& text : ways) {
      const double time = subject.Step(way(text), clips).seconds;
      if (text == ways[0]) reference = time;
      seconds[text].push_back(time);
      ratios[text].push_back(time / reference);
    }
  }
  if (rounds == 0) return 0;
  std::printf("\n%-44s %8s %10s %8s\n", "recompute", "GiB/clip", "s per clip", "ratio");
  for (const std::string& text : ways) {
    std::printf("%-44s %8.3f %10.2f %8.3f\n", text.c_str(),
                static_cast<double>(two[text] - one[text]) / gib,
                Median(seconds[text]) / static_cast<double>(clips), Median(ratios[text]));
  }
  return 0;
}

}  // namespace
}  // namespace kinefit

int main(int argc, char** argv) {
  kinefit::InstallCpuAllocator();
  std::string path = "configs/rgbpose_ntu60.toml";
  std::vector<std::string> overrides;
  std::vector<std::string> ways = {"none", "lean", "light", "block", "stage", "full"};
  int rounds = 3;
  int64_t clips = 1;
  int threads = static_cast<int>(std::thread::hardware_concurrency());  // as kinefit train
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--rounds" && i + 1 < argc) {
      rounds = std::atoi(argv[++i]);
    } else if (argument == "--clips" && i + 1 < argc) {
      clips = std::atoi(argv[++i]);
    } else if (argument == "--threads" && i + 1 < argc) {
      threads = std::max(1, std::atoi(argv[++i]));
    } else if (argument == "--ways" && i + 1 < argc) {
      ways.clear();
      std::istringstream list(argv[++i]);
      for (std::string way; std::getline(list, way, ',');) ways.push_back(way);
    } else if (argument.find('=') != std::string::npos) {
      overrides.push_back(argument);
    } else {
      path = argument;
    }
  }
  at::set_num_threads(threads);
  try {
    return kinefit::Run(kinefit::LoadConfig(path, overrides).config, rounds, clips, ways);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "recompute_bench: %s\n", error.what());
    return 2;
  }
}
