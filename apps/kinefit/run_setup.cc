#include "apps/kinefit/run_setup.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
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

void PrepareWorkDir(const std::string& path, const std::string& option) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error || !std::filesystem::is_directory(path)) {
    throw Error("cannot make the work dir: " + (error ? error.message() : "not a folder"), path,
                "choose another with " + option);
  }
  if (access(path.c_str(), W_OK | X_OK) != 0) {
    throw Error(std::string("cannot write into the work dir: ") + std::strerror(errno), path,
                "choose another with " + option + " or change its permissions");
  }
}

WorkDirLock::WorkDirLock(const std::string& work_dir) {
  const std::string path = work_dir + "/.lock";
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file_ < 0) {
    throw Error(std::string("cannot write into the work dir: ") + std::strerror(errno), path,
                "choose another with --work-dir or change its permissions");
  }
  if (flock(file_, LOCK_EX | LOCK_NB) == 0) {
    const std::string pid = std::to_string(getpid()) + "\n";
    // Only for the message below: a number that cannot be written does no harm.
    if (ftruncate(file_, 0) == 0) (void)!write(file_, pid.data(), pid.size());
    return;
  }
  if (errno != EWOULDBLOCK) return;  // a file system without locks
  char text[32] = {};
  (void)!read(file_, text, sizeof(text) - 1);
  close(file_);
  throw Error("another kinefit (process " + std::to_string(std::atol(text)) +
                  ") is training in this work dir",
              work_dir, "wait for it, stop it, or choose another with --work-dir");
}

WorkDirLock::~WorkDirLock() { close(file_); }

std::vector<std::pair<std::string, at::Tensor>> NamedTensorsOf(const Network& network) {
  std::vector<std::pair<std::string, at::Tensor>> named;
  for (const NamedTensor& entry : network.StateDict()) named.emplace_back(entry.name, entry.tensor);
  return named;
}

void LoadTrainedWeights(Network& network, const std::string& checkpoint) {
  const CheckpointDict root = ReadCheckpoint(checkpoint);
  const LoadReport report =
      LoadInto(NamedTensorsOf(network), StateDictOf(root, checkpoint, true), false, checkpoint);
  if (!report.missing.empty() || !report.mismatched.empty() || !report.unexpected.empty()) {
    throw Error("the checkpoint is of another network: " + report.Summary(), checkpoint,
                "use the configuration it was trained with");
  }
}

}  // namespace kinefit
