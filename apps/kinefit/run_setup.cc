#include "apps/kinefit/run_setup.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>

#include "checkpoint/checkpoint.h"
#include "files/error.h"
#include "memory/cpu_allocator.h"
#include "memory/plan.h"

namespace kinefit {

void SetThreads(const Config& config) {
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  at::set_num_threads(config.threads > 0 ? static_cast<int>(config.threads) : cores);
}

void ApplyMemoryBudget(const Config& config) {
  SetMemoryBudget(config.device == "cpu" ? DefaultBudget(config) : 0);
}

at::TensorOptions NetworkOptions(const Config& config) {
  at::Device device(at::kCPU);
  try {
    device = at::Device(config.device);
  } catch (const c10::Error&) {
    throw Error("\"" + config.device + "\" is not a device", "device",
                "use \"cpu\", \"cuda\" or \"cuda:N\"");
  }
  if (device.is_cuda() && !at::hasCUDA()) {
    throw Error("this build or this machine has no CUDA", "device = \"" + config.device + "\"",
                "use device = \"cpu\", or build against a LibTorch with CUDA");
  }
  return at::TensorOptions(at::kFloat).device(device);
}

void PrepareWorkDir(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error || !std::filesystem::is_directory(path)) {
    throw Error("cannot make the work dir: " + (error ? error.message() : "not a folder"), path,
                "choose another with --work-dir");
  }
  if (access(path.c_str(), W_OK | X_OK) != 0) {
    throw Error(std::string("cannot write into the work dir: ") + std::strerror(errno), path,
                "choose another with --work-dir or change its permissions");
  }
}

std::vector<std::pair<std::string, at::Tensor>> NamedTensorsOf(const Network& network) {
  std::vector<std::pair<std::string, at::Tensor>> named;
  for (const NamedTensor& entry : network.StateDict()) named.emplace_back(entry.name, entry.tensor);
  return named;
}

void LoadTrainedWeights(Network& network, const std::string& checkpoint) {
  const CheckpointDict root = ReadCheckpoint(checkpoint);
  const LoadReport report =
      LoadInto(NamedTensorsOf(network), StateDictOf(root, checkpoint, true), false, checkpoint);
  if (!report.missing.empty() || !report.mismatched.empty()) {
    throw Error("the checkpoint is of another network: " + report.Summary(), checkpoint,
                "use the configuration it was trained with");
  }
}

}  // namespace kinefit
