#include "train/process_memory.h"

#include <fstream>
#include <sstream>
#include <string>

namespace kinefit {

int64_t PeakResidentBytes() {
  std::ifstream status("/proc/self/status");
  int64_t resident_kib = 0;
  for (std::string line; std::getline(status, line);) {
    std::istringstream fields(line);
    std::string key;
    int64_t kib = 0;
    fields >> key >> kib;
    if (key == "VmHWM:" && kib > 0) return kib * 1024;
    if (key == "VmRSS:") resident_kib = kib;
  }
  return resident_kib * 1024;
}

}  // namespace kinefit
