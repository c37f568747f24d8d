#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include "files/error.h"
#include "memory/bytes.h"
#include "memory/gpu.h"
#include "memory/plan.h"

namespace kinefit {
namespace {

// The program, LibTorch's libraries, video decoders and the heap's holes: what stays resident
// besides tensors.
constexpr int64_t kProgramReserve = int64_t{512} << 20;

// The number a file holds; `none` if there is no such file or no number in it ("max").
int64_t ReadNumber(const std::string& path, int64_t none) {
  std::ifstream file(path);
  int64_t number = 0;
  return file >> number && number > 0 ? number : none;
}

// The line "KEY number" of a file like memory.stat or /proc/meminfo; 0 without one.
int64_t ReadKey(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    int64_t number = 0;
    if (word == key && file >> number) return number;
  }
  return 0;
}

// What this process holds itself.
int64_t OwnResident() {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0;
  file >> pages >> pages;
  return pages * sysconf(_SC_PAGE_SIZE);
}

// A control group's files in one of the two versions.
struct CgroupFiles {
  const char* limit;
  const char* usage;
  const char* cache;  // of memory.stat: pages of files that are given up where memory is short
};
constexpr CgroupFiles kVersion1 = {"/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                   "total_inactive_file"};
constexpr CgroupFiles kVersion2 = {"/memory.max", "/memory.current", "inactive_file"};

// Takes the limits of a group and of all above it into account: each holds for the process too.
void Tighten(const std::string& mount, std::string folder, const CgroupFiles& files, int64_t own,
             MemoryLimits* limits) {
  while (!folder.empty() && folder.back() == '/') folder.pop_back();
  for (;; folder.resize(folder.rfind('/'))) {
    const std::string base = mount + folder;
    const int64_t limit = ReadNumber(base + files.limit, 0);
    if (limit > 0 && limit < limits->total) limits->total = limit;
    if (limit > 0) {
      const int64_t used =
          ReadNumber(base + files.usage, 0) - ReadKey(base + "/memory.stat", files.cache) - own;
      limits->free = std::min(limits->free, limit - std::max<int64_t>(used, 0));
    }
    if (folder.find('/') == std::string::npos) return;
  }
}

}  // namespace

MemoryLimits ReadMemoryLimits(const std::string& cgroups, const std::string& root, int64_t machine,
                              int64_t available, int64_t own) {
  MemoryLimits limits{machine, std::min(machine, available + own)};
  std::istringstream lines(cgroups);
  for (std::string line; std::getline(lines, line);) {  // "7:memory:/a/b", "0::/a/b"
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string folder = line.substr(second + 1);
    if (controllers == ",,") {
      Tighten(root, folder, kVersion2, own, &limits);
      Tighten(root + "/unified", folder, kVersion2, own, &limits);
    } else if (controllers.find(",memory,") != std::string::npos) {
      Tighten(root + "/memory", folder, kVersion1, own, &limits);
    }
  }
  // In a container its own group is mounted as the root, whatever its name outside.
  Tighten(root, "", kVersion2, own, &limits);
  Tighten(root + "/memory", "", kVersion1, own, &limits);
  limits.free = std::max<int64_t>(std::min(limits.free, limits.total), 0);
  return limits;
}

MemoryLimits MachineLimits() {
  std::ifstream file("/proc/self/cgroup");
  std::ostringstream cgroups;
  cgroups << file.rdbuf();
  const int64_t machine = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  const int64_t available = ReadKey("/proc/meminfo", "MemAvailable:") * 1024;
  return ReadMemoryLimits(cgroups.str(), "/sys/fs/cgroup", machine,
                          available > 0 ? available : machine, OwnResident());
}

int64_t MachineMemory() { return MachineLimits().total; }

int64_t DefaultBudget(const Config& config) {
  if (!config.memory.budget.empty()) {
    const int64_t budget = ParseBytes(config.memory.budget, "memory.budget");
    if (config.device == "cpu" && budget > MachineMemory()) {
      throw Error("the budget of " + FormatAmount(budget) + " is more than the " +
                      FormatAmount(MachineMemory()) + " that this machine, or its container, has",
                  "memory.budget", "give less, or leave it out: what is free is then used");
    }
    return budget;
  }
  if (config.device != "cpu") return GpuMemory(config.device);
  return std::max<int64_t>(MachineLimits().free - kProgramReserve, 1);
}

}  // namespace kinefit
