#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "memory/bytes.h"
#include "memory/gpu.h"
#include "memory/plan.h"

namespace kinefit {
namespace {

// The program, LibTorch's libraries, video decoders and the heap's holes: what stays resident
// besides tensors.
constexpr int64_t kProgramReserve = int64_t{512} << 20;

// The number a limit file holds; `none` if there is no such file or no limit in it ("max").
int64_t ReadLimit(const std::string& path, int64_t none) {
  std::ifstream file(path);
  int64_t limit = 0;
  return file >> limit && limit > 0 ? limit : none;
}

// The present process's folder below the cgroup v2 mount, "/" in most containers.
std::string CgroupFolder() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, 3, "0::") == 0) return line.substr(3);
  }
  return "/";
}

}  // namespace

int64_t MachineMemory() {
  int64_t memory = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  memory = std::min(memory, ReadLimit("/sys/fs/cgroup/memory/memory.limit_in_bytes", memory));
  // A limit anywhere above the process holds for it too.
  for (std::string folder = CgroupFolder();; folder.resize(folder.rfind('/'))) {
    memory = std::min(memory, ReadLimit("/sys/fs/cgroup" + folder + "/memory.max", memory));
    if (folder.find('/') == std::string::npos) return memory;
  }
}

int64_t DefaultBudget(const Config& config) {
  if (!config.memory.budget.empty()) return ParseBytes(config.memory.budget, "memory.budget");
  if (config.device != "cpu") return GpuMemory(config.device);
  return std::max<int64_t>(MachineMemory() - kProgramReserve, 1);
}

}  // namespace kinefit
