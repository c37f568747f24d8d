#pragma once

#include <c10/core/TensorOptions.h>

#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "model/network.h"

namespace kinefit {

// Uses config.threads threads for tensor operations (0: one per core).
void SetThreads(const Config& config);

// Lets CPU tensors have what the run may use (memory.budget, else what the machine has) and no
// more: beyond that c10::OutOfMemoryError is thrown, where the system would kill the program. On a
// GPU the budget is not for CPU tensors: there is none then. Throws Error for a malformed budget.
void ApplyMemoryBudget(const Config& config);

// float32 on config.device. Throws Error if that device does not exist here.
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
void LoadTrainedWeights(Network& network, const std::string& checkpoint);

// The state dict as (name, tensor) pairs; the tensors are the network's own.
std::vector<std::pair<std::string, at::Tensor>> NamedTensorsOf(const Network& network);

}  // namespace kinefit
