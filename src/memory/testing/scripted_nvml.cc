// A shared library with NVML's entry points and scripted answers, for tests on machines without a
// GPU. Written from NVIDIA's documentation and on purpose not from src/memory/nvml.cc: both have to
// have the same layout of their own.
//
// The environment variable KINEFIT_NVML_SCRIPT names a file of lines:
//   init ERROR                            what nvmlInit_v2 returns (0 without such a line)
//   driver VERSION
//   gpu TOTAL USED RESERVED NAME          the next GPU, amounts in bytes; RESERVED -1: not known
//   broken ERROR                          the next GPU, which gives only that error
//   compute PID BYTES | graphics PID BYTES  on the last GPU; BYTES -1: not available

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct Process {
  unsigned int pid;
  int64_t bytes;
};

struct Gpu {
  int64_t total = 0;
  int64_t used = 0;
  int64_t reserved = -1;
  int error = 0;
  std::string name;
  std::vector<Process> compute;
  std::vector<Process> graphics;
};

struct Script {
  int init = 0;
  std::string driver;
  std::vector<Gpu> gpus;
};

Script script;
bool initialised = false;

void ReadScript() {
  script = Script();
  const char* path = std::getenv("KINEFIT_NVML_SCRIPT");
  std::ifstream file(path == nullptr ? "" : path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key;
    words >> key;
    Process process{};
    Gpu gpu;
    if (key == "init") words >> script.init;
    if (key == "driver") words >> script.driver;
    if (key == "gpu") {
      words >> gpu.total >> gpu.used >> gpu.reserved >> std::ws;
      std::getline(words, gpu.name);
      script.gpus.push_back(gpu);
    }
    if (key == "broken") {
      words >> gpu.error;
      script.gpus.push_back(gpu);
    }
    if (key == "compute" || key == "graphics") {
      words >> process.pid >> process.bytes;
      Gpu& last = script.gpus.back();
      (key == "compute" ? last.compute : last.graphics).push_back(process);
    }
  }
}

int CopyText(const std::string& text, char* target, unsigned int size) {
  if (text.size() + 1 > size) return 7;
  std::memcpy(target, text.c_str(), text.size() + 1);
  return 0;
}

}  // namespace

extern "C" {

typedef struct nvmlDevice_st* nvmlDevice_t;

typedef struct {
  unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
  unsigned int version;
  unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
  unsigned int pid;
  unsigned long long usedGpuMemory;
  unsigned int gpuInstanceId;
  unsigned int computeInstanceId;
} nvmlProcessInfo_v2_t;

typedef struct {
  unsigned int pid;
  unsigned long long usedGpuMemory;
} nvmlProcessInfo_v1_t;

int nvmlInit_v2() {
  ReadScript();
  initialised = script.init == 0;
  return script.init;
}

int nvmlShutdown() {
  if (!initialised) return 1;
  initialised = false;
  return 0;
}

const char* nvmlErrorString(int error) {
  if (error == 18) return "Driver/library version mismatch";
  if (error == 15) return "GPU is lost";
  return "Unknown Error";
}

int nvmlSystemGetDriverVersion(char* version, unsigned int length) {
  return initialised ? CopyText(script.driver, version, length) : 1;
}

int nvmlDeviceGetCount_v2(unsigned int* count) {
  if (!initialised) return 1;
  *count = static_cast<unsigned int>(script.gpus.size());
  return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t* device) {
  if (!initialised) return 1;
  if (index >= script.gpus.size()) return 2;
  if (script.gpus[index].error != 0) return script.gpus[index].error;
  *device = reinterpret_cast<nvmlDevice_t>(&script.gpus[index]);
  return 0;
}

int nvmlDeviceGetName(nvmlDevice_t device, char* name, unsigned int length) {
  return CopyText(reinterpret_cast<Gpu*>(device)->name, name, length);
}

int nvmlDeviceGetUUID(nvmlDevice_t device, char* uuid, unsigned int length) {
  const auto index = reinterpret_cast<Gpu*>(device) - script.gpus.data();
  return CopyText("GPU-0000-" + std::to_string(index), uuid, length);
}

int nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* memory) {
  const Gpu& gpu = *reinterpret_cast<Gpu*>(device);
  memory->total = static_cast<unsigned long long>(gpu.total);
  memory->used = static_cast<unsigned long long>(gpu.used);
  memory->free = static_cast<unsigned long long>(gpu.total - gpu.used);
  return 0;
}

int nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t* memory) {
  const Gpu& gpu = *reinterpret_cast<Gpu*>(device);
  if (gpu.reserved < 0) return 3;
  if (memory->version != (sizeof(nvmlMemory_v2_t) | (2 << 24U))) return 25;
  memory->reserved = static_cast<unsigned long long>(gpu.reserved);
  memory->used = static_cast<unsigned long long>(gpu.used);
  memory->total = static_cast<unsigned long long>(gpu.total);
  memory->free = memory->total - memory->used;
  return 0;
}

#ifdef KINEFIT_OLD_NVML
#define PROCESS nvmlProcessInfo_v1_t
#define COMPUTE nvmlDeviceGetComputeRunningProcesses
#define GRAPHICS nvmlDeviceGetGraphicsRunningProcesses
#else
#define PROCESS nvmlProcessInfo_v2_t
#define COMPUTE nvmlDeviceGetComputeRunningProcesses_v2
#define GRAPHICS nvmlDeviceGetGraphicsRunningProcesses_v2
#endif

static int List(const std::vector<Process>& processes, unsigned int* count, PROCESS* infos) {
  const unsigned int room = *count;
  *count = static_cast<unsigned int>(processes.size());
  if (room < processes.size()) return 7;
  for (size_t i = 0; i < processes.size(); ++i) {
    infos[i] = PROCESS{};
    infos[i].pid = processes[i].pid;
    infos[i].usedGpuMemory = static_cast<unsigned long long>(processes[i].bytes);
  }
  return 0;
}

int COMPUTE(nvmlDevice_t device, unsigned int* count, PROCESS* infos) {
  return List(reinterpret_cast<Gpu*>(device)->compute, count, infos);
}

int GRAPHICS(nvmlDevice_t device, unsigned int* count, PROCESS* infos) {
  return List(reinterpret_cast<Gpu*>(device)->graphics, count, infos);
}

}  // extern "C"
