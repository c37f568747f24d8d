#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kinefit {

// A running process as /proc shows it.
struct ProcessEntry {
  int64_t pid = 0;
  std::string name;      // "python3"
  std::string command;   // the whole command line, without control characters, at most 200 bytes
  std::string user;      // by name, or by number where the name is not known; "" if not visible
  int64_t resident = 0;  // bytes in memory, shared pages included
};

// Absent if there is no such process, or it is not visible here (a container sees only its own).
// `proc`: where the proc file system is mounted.
std::optional<ProcessEntry> ReadProcess(int64_t pid, const std::string& proc = "/proc");

// The processes with most resident memory, largest first.
std::vector<ProcessEntry> LargestProcesses(size_t count, const std::string& proc = "/proc");

// Bytes; 0 where the system does not say.
struct HostMemory {
  int64_t total = 0;
  int64_t available = 0;  // without swapping, as the kernel estimates it
  int64_t limit = 0;      // of this process's container (cgroup), if it is less than the total
};
HostMemory ReadHostMemory(const std::string& proc = "/proc");

}  // namespace kinefit
