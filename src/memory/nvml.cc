#include "memory/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <memory>

namespace kinefit {
namespace {

// The part of NVML's binary interface that is used here, as NVIDIA documents it
// (https://docs.nvidia.com/deploy/nvml-api): every function returns 0 or an error number, handles
// are pointers to what only the driver knows, all amounts are bytes.
extern "C" {
struct nvmlDevice_st;
}
using NvmlDevice = nvmlDevice_st*;
constexpr int kNvmlSuccess = 0;
constexpr int kNvmlNotSupported = 3;
constexpr int kNvmlInsufficientSize = 7;
constexpr unsigned long long kNvmlNotAvailable = std::numeric_limits<unsigned long long>::max();

struct NvmlMemory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

struct NvmlMemoryV2 {
  unsigned int version;  // the structure's size and, in the top byte, 2
  unsigned long long total;
  unsigned long long reserved;
  unsigned long long free;
  unsigned long long used;
};
static_assert(sizeof(NvmlMemory) == 24 && sizeof(NvmlMemoryV2) == 40, "NVML's layout");

// What the process queries fill in: the first form in the functions without a suffix, the second
// in those with _v2 and _v3.
struct NvmlProcessV1 {
  unsigned int pid;
  unsigned long long bytes;
};
struct NvmlProcessV2 {
  unsigned int pid;
  unsigned long long bytes;
  unsigned int gpu_instance;
  unsigned int compute_instance;
};
static_assert(sizeof(NvmlProcessV1) == 16 && sizeof(NvmlProcessV2) == 24, "NVML's layout");

// The loaded library; unloaded with the last user. Calls nvmlShutdown if Start() succeeded.
class Nvml {
 public:
  explicit Nvml(void* library) : library_(library) {}
  ~Nvml() {
    if (started_) Call<int()>("nvmlShutdown");
    dlclose(library_);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // The function, or nullptr in a driver that is too old for it.
  template <typename Signature>
  Signature* Find(const char* name) const {
    return reinterpret_cast<Signature*>(dlsym(library_, name));
  }
  // Its result; "not supported" if the driver does not have it.
  template <typename Signature, typename... Arguments>
  int Call(const char* name, Arguments... arguments) const {
    Signature* function = Find<Signature>(name);
    return function == nullptr ? kNvmlNotSupported : function(arguments...);
  }
  int Start() {
    const int result = Call<int()>("nvmlInit_v2");
    started_ = result == kNvmlSuccess;
    return result;
  }
  std::string ErrorText(int error) const {
    auto* text = Find<const char*(int)>("nvmlErrorString");
    const char* words = text == nullptr ? nullptr : text(error);
    return words != nullptr ? words : "error " + std::to_string(error);
  }

 private:
  void* library_;
  bool started_ = false;
};

std::unique_ptr<Nvml> Load(const std::string& path) {
  // The second is where WSL keeps it.
  std::vector<std::string> names = {"libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1"};
  if (!path.empty()) names = {path};
  for (const std::string& name : names) {
    void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return std::make_unique<Nvml>(library);
  }
  return nullptr;
}

int64_t Bytes(unsigned long long bytes) {
  return static_cast<int64_t>(
      std::min<unsigned long long>(bytes, std::numeric_limits<int64_t>::max()));
}

// Calls the query `name` until its list is complete; appends it to `uses`, the larger amount where
// a process is in several lists. False if the driver does not have that query.
template <typename Process>
bool ListProcesses(const Nvml& nvml, const std::string& name, NvmlDevice device,
                   std::map<int64_t, std::optional<int64_t>>* uses) {
  auto* query = nvml.Find<int(NvmlDevice, unsigned int*, Process*)>(name.c_str());
  if (query == nullptr) return false;
  // Processes come and go between the calls. Drivers 535.43 to 535.86 write larger entries than
  // documented; the spare ones keep those from harm.
  for (unsigned int room = 64; room <= 1u << 16; room *= 4) {
    std::vector<Process> processes(2 * size_t{room});
    unsigned int count = room;
    const int result = query(device, &count, processes.data());
    if (result == kNvmlInsufficientSize) continue;
    if (result != kNvmlSuccess) return true;
    for (unsigned int i = 0; i < std::min(count, room); ++i) {
      std::optional<int64_t>& bytes = (*uses)[processes[i].pid];
      if (processes[i].bytes == kNvmlNotAvailable) continue;
      bytes = std::max(bytes.value_or(0), Bytes(processes[i].bytes));
    }
    return true;
  }
  return true;
}

std::vector<GpuUse> Processes(const Nvml& nvml, NvmlDevice device, const std::string& proc) {
  std::map<int64_t, std::optional<int64_t>> uses;
  for (const std::string kind : {"Compute", "Graphics", "MPSCompute"}) {
    const std::string name = "nvmlDeviceGet" + kind + "RunningProcesses";
    // _v2 first: its entries are the same in all drivers, those of _v3 are not.
    if (ListProcesses<NvmlProcessV2>(nvml, name + "_v2", device, &uses)) continue;
    if (ListProcesses<NvmlProcessV2>(nvml, name + "_v3", device, &uses)) continue;
    ListProcesses<NvmlProcessV1>(nvml, name, device, &uses);
  }
  std::vector<GpuUse> processes;
  processes.reserve(uses.size());
  for (const auto& [pid, bytes] : uses) processes.push_back({pid, bytes, ReadProcess(pid, proc)});
  std::stable_sort(processes.begin(), processes.end(), [](const GpuUse& a, const GpuUse& b) {
    return a.bytes.value_or(-1) > b.bytes.value_or(-1);
  });
  return processes;
}

std::string Text(const Nvml& nvml, const char* query, NvmlDevice device) {
  std::array<char, 256> text{};
  const int result = nvml.Call<int(NvmlDevice, char*, unsigned int)>(
      query, device, text.data(), static_cast<unsigned int>(text.size() - 1));
  return result == kNvmlSuccess ? text.data() : "";
}

GpuState ReadGpu(const Nvml& nvml, unsigned int index, const std::string& proc) {
  GpuState gpu;
  gpu.index = index;
  NvmlDevice device = nullptr;
  int result =
      nvml.Call<int(unsigned int, NvmlDevice*)>("nvmlDeviceGetHandleByIndex_v2", index, &device);
  if (result != kNvmlSuccess) {
    gpu.problem = nvml.ErrorText(result);
    return gpu;
  }
  gpu.name = Text(nvml, "nvmlDeviceGetName", device);
  gpu.uuid = Text(nvml, "nvmlDeviceGetUUID", device);
  NvmlMemory memory{};
  result = nvml.Call<int(NvmlDevice, NvmlMemory*)>("nvmlDeviceGetMemoryInfo", device, &memory);
  if (result != kNvmlSuccess) {
    gpu.problem = nvml.ErrorText(result);
    return gpu;
  }
  gpu.total = Bytes(memory.total);
  gpu.used = Bytes(memory.used);
  gpu.free = Bytes(memory.free);
  NvmlMemoryV2 second{};
  second.version = static_cast<unsigned int>(sizeof second) | 2u << 24;
  if (nvml.Call<int(NvmlDevice, NvmlMemoryV2*)>("nvmlDeviceGetMemoryInfo_v2", device, &second) ==
      kNvmlSuccess) {
    gpu.reserved = Bytes(second.reserved);
  }
  gpu.processes = Processes(nvml, device, proc);
  gpu.unattributed = gpu.used - gpu.reserved.value_or(0);
  for (const GpuUse& use : gpu.processes) gpu.unattributed -= use.bytes.value_or(0);
  return gpu;
}

}  // namespace

GpuStates ReadGpus(const std::string& library, const std::string& proc) {
  GpuStates states;
  const std::unique_ptr<Nvml> nvml = Load(library);
  if (nvml == nullptr) return states;
  states.status = GpuStates::kFailed;
  if (nvml->Find<int()>("nvmlInit_v2") == nullptr) {
    states.problem = "the library lacks nvmlInit_v2: it is not NVML, or older than driver 319";
    return states;
  }
  int result = nvml->Start();
  unsigned int count = 0;
  if (result == kNvmlSuccess) {
    result = nvml->Call<int(unsigned int*)>("nvmlDeviceGetCount_v2", &count);
  }
  if (result != kNvmlSuccess) {
    states.problem = nvml->ErrorText(result);
    return states;
  }
  states.status = GpuStates::kRead;
  std::array<char, 128> driver{};
  if (nvml->Call<int(char*, unsigned int)>("nvmlSystemGetDriverVersion", driver.data(),
                                           static_cast<unsigned int>(driver.size() - 1)) ==
      kNvmlSuccess) {
    states.driver = driver.data();
  }
  for (unsigned int i = 0; i < std::min(count, 1024u); ++i) {
    states.gpus.push_back(ReadGpu(*nvml, i, proc));
  }
  return states;
}

}  // namespace kinefit
