#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "memory/processes.h"

namespace kinefit {

// What a process holds on a GPU, as the driver reports it.
struct GpuUse {
  int64_t pid = 0;                      // as the host counts processes, also in a container
  std::optional<int64_t> bytes;         // absent: the driver does not say (WSL)
  std::optional<ProcessEntry> process;  // absent: not visible here (another container, or ended)
};

struct GpuState {
  int64_t index = 0;  // as nvidia-smi counts
  std::string name;   // "NVIDIA A100-PCIE-40GB"
  std::string uuid;
  int64_t total = 0;  // bytes; total = used + free
  int64_t used = 0;
  int64_t free = 0;
  std::optional<int64_t> reserved;  // of `used`: by the driver for itself (from driver 510 on)
  std::vector<GpuUse> processes;    // most memory first
  // Of `used`: neither the driver's own nor any listed process's. Negative where the driver counts
  // shared memory in several processes.
  int64_t unattributed = 0;
  std::string problem;  // why figures of this GPU are missing; "" if none are
};

struct GpuStates {
  enum Status {
    kRead,       // `gpus` holds what there is, possibly no GPU
    kNoLibrary,  // no NVIDIA driver library here
    kFailed      // the library is here but does not work: `problem` says what it says
  };
  Status status = kNoLibrary;
  std::string problem;
  std::string driver;  // version, "550.54.14"
  std::vector<GpuState> gpus;
};

// Asks NVML, the NVIDIA driver's own library, which is loaded at run time and needed nowhere else.
// `library`: its path; "" tries the usual names. `proc`: where processes are looked up.
// Tested against a scripted library with NVML's entry points only: it has not been run on a real
// GPU.
GpuStates ReadGpus(const std::string& library = "", const std::string& proc = "/proc");

}  // namespace kinefit
