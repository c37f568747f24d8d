#include "apps/kinefit/run_setup.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "apps/kinefit/commands.h"
#include "checkpoint/checkpoint.h"
#include "files/error.h"
#include "libtorch/versions.h"
#include "memory/bytes.h"
#include "memory/cpu_allocator.h"
#include "memory/cuda_constants.h"
#include "memory/gpu.h"
#include "memory/plan.h"
#include "model/weights_kind.h"

namespace kinefit {

namespace {

// Those that this process may run on (taskset, a container), at least 1.
int64_t Cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1U, std::thread::hardware_concurrency());
}

// Why this rank ended, as torchrun's tools and kinefit launch read it.
void WriteErrorFile(const RankEnvironment& environment, const std::string& message) {
  if (environment.error_file.empty()) return;
  const nlohmann::json content = {
      {"message",
       {{"message", message},
        {"extraInfo",
         {{"rank", environment.rank}, {"timestamp", std::to_string(std::time(nullptr))}}}}}};
  std::ofstream(environment.error_file)
      << content.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

[[noreturn]] void EndLost(const RankEnvironment& environment, const std::string& message) {
  WriteErrorFile(environment, message);
  std::fflush(stdout);
  std::cout.flush();
  std::fprintf(stderr, "kinefit: rank %lld ends because the run is lost: %s\n",
               static_cast<long long>(environment.rank), message.c_str());
  std::fflush(stderr);
  std::_Exit(kExitFailed);
}

}  // namespace

void SetThreads(const Config& config, int64_t ranks) {
  const int64_t cores = std::max<int64_t>(Cores() / std::max<int64_t>(ranks, 1), 1);
  UseThreads(static_cast<int>(config.threads > 0 ? config.threads : cores));
}

void ChooseDevice(const RankEnvironment& environment, Config* config) {
  if (environment.one_of_many() && config->device == "cuda") {
    config->device += ":" + std::to_string(environment.local_rank);
  }
}

Ranks::Ranks(const RankEnvironment& environment, const Config& config) : environment_(environment) {
  GroupOptions options;
  options.timeout = config.distributed.timeout;
  options.shared_memory = config.distributed.shared_memory;
  options.cuda = config.device.compare(0, 4, "cuda") == 0;
  options.end_process = [environment](const std::string& message) {
    EndLost(environment, message);
  };
  group_ = JoinGroup(environment, options);
}

int Ranks::Run(const std::function<int()>& work) {
  if (!environment_.one_of_many()) return work();
  try {
    const int exit_code = work();
    group_->Leave();
    return exit_code;
  } catch (...) {
    std::string reason;
    const int exit_code = ReportException(std::current_exception(), &reason);
    WriteErrorFile(environment_, reason);
    group_->Fail(reason);
    // Whatever is still under way between the ranks is not waited for.
    std::fflush(stderr);
    std::_Exit(exit_code);
  }
}

void ApplyMemoryBudget(Config& config, int64_t ranks) {
  if (ranks > 1 && config.device == "cpu" && config.memory.budget.empty()) {
    config.memory.budget = std::to_string(DefaultBudget(config) / ranks);
  }
  ApplyMemoryBudget(config);
}

void ApplyMemoryBudget(const Config& config) {
  SetMemoryBudget(config.device == "cpu" ? DefaultBudget(config) : 0);
}

void ApplyGpuBudget(const Config& config, int64_t world) {
  if (config.device == "cpu" || config.memory.budget.empty()) return;
  CudaProcess process;
  process.devices = static_cast<int>(world);
  const int64_t outside = OutsideBytes(process).planned;
  const int64_t budget = DefaultBudget(config);
  if (budget <= outside) {
    throw Error(
        "what CUDA takes for itself, about " + FormatAmount(outside) + ", is more than that",
        "memory.budget = \"" + config.memory.budget + "\"", "allow more memory");
  }
  LimitGpuMemory(config.device, budget - outside);
}

at::TensorOptions NetworkOptions(const Config& config) {
  return at::TensorOptions(at::kFloat).device(UseDevice(config.device));
}

void PrepareRank(const RankEnvironment& environment, Config* config) {
  SetThreads(*config, environment.local_world);
  ApplyMemoryBudget(*config, environment.local_world);
  NetworkOptions(*config);
  ApplyGpuBudget(*config, environment.world);
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

void LoadTrainedWeights(Network& network, const std::string& type, const std::string& checkpoint) {
  const CheckpointDict root = ReadCheckpoint(checkpoint);
  const NamedTensors weights = StateDictOf(root, checkpoint, true);
  RequireKind(weights, type, checkpoint);
  const LoadReport report = LoadInto(NamedTensorsOf(network), weights, false, checkpoint);
  const std::vector<std::string> missing = WithoutOptional(report.missing);
  if (missing.size() < report.missing.size()) {
    std::cout << "the checkpoint has no coarse prototypes, as the published code saves none; only "
                 "training needs them\n";
  }
  if (!missing.empty() || !report.mismatched.empty() || !report.unexpected.empty()) {
    throw Error("the checkpoint is of another network: " + report.Summary(), checkpoint,
                "use the configuration it was trained with");
  }
}

}  // namespace kinefit
