// Training and inference steps of a configuration's network on random input that lies on the
// device already, as bench/reference_step.py times PyTorch's. Prints one JSON object.
//
//   gpu_step_bench CONFIG train|infer [--rounds N] [--profile TRACE.json] [SET...]

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#ifdef KINEFIT_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#endif

#include "config/load.h"
#include "files/error.h"
#include "memory/gpu.h"
#include "model/describe.h"
#include "train/loss_scaler.h"
#include "train/optimizer.h"
#include "train/precision.h"
#include "train/step.h"

namespace kinefit {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Synchronise([[maybe_unused]] const Config& config) {
#ifdef KINEFIT_CUDA
  if (config.device != "cpu") c10::cuda::device_synchronize();
#endif
}

struct Arguments {
  std::string config, what = "train", profile;
  int rounds = 10;
  std::vector<std::string> settings;
  bool reproducible = false, benchmark = true, tf32 = true;
};

Arguments Parse(int argc, char** argv) {
  Arguments a;
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--rounds" && i + 1 < argc) {
      a.rounds = std::atoi(argv[++i]);
    } else if (word == "--profile" && i + 1 < argc) {
      a.profile = argv[++i];
    } else if (word == "--reproducible") {
      a.reproducible = true;
    } else if (word == "--no-benchmark") {
      a.benchmark = false;
    } else if (word == "--no-tf32") {
      a.tf32 = false;
    } else {
      words.push_back(word);
    }
  }
  if (words.size() < 2) throw Error("usage: gpu_step_bench CONFIG train|infer [SET...]");
  a.config = words[0];
  a.what = words[1];
  a.settings.assign(words.begin() + 2, words.end());
  return a;
}

template <typename Step>
void Profile([[maybe_unused]] const std::string& path, const Step& step) {
#ifdef KINEFIT_CUDA
  using namespace torch::autograd::profiler;  // NOLINT: a bench of its own
  using torch::profiler::impl::ActivityType;
  const std::set<ActivityType> activities = {ActivityType::CUDA};
  const ProfilerConfig config(ProfilerState::KINETO);
  prepareProfiler(config, activities);
  enableProfiler(config, activities);
  step();
  c10::cuda::device_synchronize();
  disableProfiler()->save(path);
#else
  step();
#endif
}

int Run(const Arguments& a) {
  const Config config = LoadConfig(a.config, a.settings).config;
  const c10::Device device = UseDevice(config.device);
  SetGpuArithmetic({a.reproducible, a.benchmark, a.tf32});
  const auto options = at::TensorOptions(at::kFloat).device(device);
  const auto network = MakeNetwork(config.model, options);
  InitialiseNetwork(*network, config.model, 1);
  const std::string way = config.memory.recompute == "auto" ? "lean" : config.memory.recompute;
  network->SetRecompute(ParseRecompute(way, network->Segments(), "memory.recompute"));
  const bool train = a.what == "train";
  network->Train(train);
  const auto optimizer = MakeOptimizer(config.train.optimizer, network->parameters());
  LossScaler scaler;
  TrainStep step(*network, config, *optimizer,
                 config.train.precision == "fp16" ? &scaler : nullptr);

  const int64_t clips = config.train.batch_size;
  const NetworkInput like = TrainingInputOnMeta(config, clips);
  Batch batch;
  if (like.imgs.defined()) batch.imgs = at::rand(like.imgs.sizes(), options);
  if (like.heatmap_imgs.defined())
    batch.heatmap_imgs = at::rand(like.heatmap_imgs.sizes(), options);
  batch.labels = at::zeros({clips}, options.dtype(at::kLong));
  batch.ids.resize(static_cast<size_t>(clips));
  double loss = 0;
  int64_t iteration = 0;
  const auto once = [&] {
    if (!train) {
      const at::NoGradGuard no_grad;
      RandomStream random(1, "bench");
      network->Forward({batch.imgs, batch.heatmap_imgs}, random);
      return;
    }
    bool given = false;
    loss = step.Run(iteration++, 1e-6,
                    [&](Batch* to) {
                      if (given) return false;
                      *to = batch;
                      return given = true;
                    })
               .loss;
  };
  for (int i = 0; i < 3; ++i) once();
  Synchronise(config);
  std::vector<double> times;
  for (int i = 0; i < a.rounds; ++i) {
    const double start = Seconds();
    once();
    Synchronise(config);
    times.push_back(Seconds() - start);
  }
  if (!a.profile.empty()) Profile(a.profile, once);
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  nlohmann::json result = {{"config", a.config},
                           {"what", a.what},
                           {"batch", clips},
                           {"precision", config.train.precision},
                           {"recompute", way},
                           {"reproducible", a.reproducible},
                           {"loss", loss},
                           {"step_s_median", median},
                           {"step_s_min", times.front()},
                           {"step_s_max", times.back()},
                           {"clips_per_s", static_cast<double>(clips) / median}};
#ifdef KINEFIT_CUDA
  if (device.is_cuda()) {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
    size_t free = 0;
    size_t total = 0;
    cudaMemGetInfo(&free, &total);
    const double gib = 0x1p30;
    result["allocated_gib"] = static_cast<double>(stats.allocated_bytes[0].peak) / gib;
    result["reserved_gib"] = static_cast<double>(stats.reserved_bytes[0].peak) / gib;
    result["driver_gib"] = static_cast<double>(total - free) / gib;
  }
#endif
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace kinefit

int main(int argc, char** argv) {
  try {
    return kinefit::Run(kinefit::Parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_step_bench: %s\n", error.what());
    return 1;
  }
}
