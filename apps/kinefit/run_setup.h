#pragma once

#include <c10/core/TensorOptions.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "distributed/environment.h"
#include "distributed/group.h"
#include "model/network.h"

namespace kinefit {

// Uses config.threads threads for tensor operations (0: one per core that this process may use,
// shared with the other `ranks` of its machine).
void SetThreads(const Config& config, int64_t ranks = 1);

// "cuda" becomes the GPU of this rank on its machine.
void ChooseDevice(const RankEnvironment& environment, Config* config);

// The ranks of the run that this process is one of, as the environment says; a group of one if it
// says nothing. Where a rank is lost, the process ends with a message on standard error and in
// the error file that was asked for.
class Ranks {
 public:
  Ranks(const RankEnvironment& environment, const Config& config);

  Group& group() { return *group_; }
  // Runs `work`, this rank's part, to its end together with the others'. What it throws, the others
  // are told; they end too.
  int Run(const std::function<int()>& work);

 private:
  RankEnvironment environment_;
  std::unique_ptr<Group> group_;
};

// Lets CPU tensors have what the run may use (memory.budget, else what the machine has) and no
// more: beyond that c10::OutOfMemoryError is thrown, where the system would kill the program. On a
// GPU the budget is not for CPU tensors: there is none then. Throws Error for a malformed budget.
// What the machine has is shared by the `ranks` on it, and becomes config's memory.budget.
void ApplyMemoryBudget(Config& config, int64_t ranks);
void ApplyMemoryBudget(const Config& config);

// Lets tensors on the GPU have memory.budget, less what CUDA and NCCL take beside them in a run of
// `world` ranks, and no more. Does nothing on the CPU and without memory.budget.
void ApplyGpuBudget(const Config& config, int64_t world);

// Threads, memory and device of this rank, as `config` and the environment say. To be called before
// the ranks meet: a GPU that is not there is told before the others are waited for. Throws Error.
void PrepareRank(const RankEnvironment& environment, Config* config);

// float32 on config.device, which is this process's from now on. Throws Error if that device does
// not exist here.
at::TensorOptions NetworkOptions(const Config& config);

// Makes the folder if need be. Throws Error if it cannot be written to; `option` is the one that
// names it.
void PrepareWorkDir(const std::string& path, const std::string& option);

// Keeps two runs from writing into one work dir. The lock ends with the process, however that ends.
class WorkDirLock {
 public:
  // Throws Error, naming the process, if another one trains there.
  explicit WorkDirLock(const std::string& work_dir);
  ~WorkDirLock();
  WorkDirLock(const WorkDirLock&) = delete;
  WorkDirLock& operator=(const WorkDirLock&) = delete;

 private:
  int file_ = -1;
};

// Loads the weights of `checkpoint` (EMA where it has them) into the network.
// Throws Error for a checkpoint of another network: names or shapes that do not match.
void LoadTrainedWeights(Network& network, const std::string& type,
                        const std::string& checkpoint);

// The state dict as (name, tensor) pairs; the tensors are the network's own.
std::vector<std::pair<std::string, at::Tensor>> NamedTensorsOf(const Network& network);

}  // namespace kinefit
