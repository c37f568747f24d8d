#include "memory/gpu.h"

#include <ATen/ATen.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>
#include <vector>

#include "files/error.h"
#include "memory/cuda_constants.h"
#include "memory/oom_message.h"

#ifdef KINEFIT_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#endif

namespace kinefit {
namespace {

c10::Device GpuNamed(const std::string& device) {
  try {
    const c10::Device named(device);
    if (named.is_cuda()) return named;
  } catch (const c10::Error&) {  // what it says is of no use to anybody
  }
  throw Error("\"" + device + "\" is not a device", "device",
              "use \"cpu\", \"cuda\" or \"cuda:N\"");
}

#ifdef KINEFIT_CUDA

bool NamesGpu(const std::string& device) { return device.compare(0, 4, "cuda") == 0; }

namespace cache = c10::cuda::CUDACachingAllocator;

// Of each kind of figure that the cache keeps: of small and large blocks together.
constexpr size_t kOfAll = 0;

// The number of a GPU that is there. LibTorch's allocator knows of none before it is first asked
// for memory, and throws at any question until then.
c10::DeviceIndex IndexOf(const std::string& device) {
  const c10::Device gpu = UseDevice(device);
  at::empty({0}, at::TensorOptions().device(gpu).dtype(at::kByte));
  return gpu.index();
}

// What the driver says; no memory at all if it says nothing.
struct DriverMemory {
  size_t free = 0;
  size_t total = 0;
};

DriverMemory AskDriver(c10::DeviceIndex index) {
  const c10::cuda::CUDAGuard guard(index);
  DriverMemory memory;
  if (cudaMemGetInfo(&memory.free, &memory.total) != cudaSuccess) {
    cudaGetLastError();  // not to be found by whoever asks next
    return {};
  }
  return memory;
}

#endif

// How often LibTorch's allocator had to refuse, on all GPUs.
int64_t Refusals() {
#ifdef KINEFIT_CUDA
  if (at::hasCUDA() && cache::get()->initialized()) {
    int64_t all = 0;
    for (c10::DeviceIndex i = 0; i < c10::cuda::device_count(); ++i) {
      all += cache::getDeviceStats(i).num_ooms;
    }
    return all;
  }
#endif
  return 0;
}

// Where cuDNN's algorithms find no room for their workspaces one after the other, LibTorch says no
// more than that none is left.
bool SaysNoAlgorithm(const c10::Error& error) {
  return error.msg().find("unable to find an engine") != std::string::npos;
}

bool SaysOutOfGpuMemory(const c10::Error& error) {
  for (const OomMessage& message : FindOomMessages(error.msg())) {
    if (message.kind == OomKind::kGpuBare || message.kind == OomKind::kGpuLibrary) return true;
  }
  return false;
}

}  // namespace

c10::Device UseDevice(const std::string& device) {
  if (device == "cpu") return c10::DeviceType::CPU;
  c10::Device wanted = GpuNamed(device);
  if (!at::hasCUDA()) {
    throw Error("this build or this machine has no CUDA", "device = \"" + device + "\"",
                "use device = \"cpu\", or build against a LibTorch with CUDA (docs/libtorch.md)");
  }
  const auto* guard = c10::impl::getDeviceGuardImpl(c10::DeviceType::CUDA);
  const c10::DeviceIndex count = guard->deviceCount();
  if (!wanted.has_index()) wanted.set_index(0);
  if (wanted.index() >= count) {
    throw Error("this process sees " + std::to_string(count) + " GPUs",
                "device = \"" + device + "\"",
                "they are numbered from 0; CUDA_VISIBLE_DEVICES says which are seen");
  }
  guard->setDevice(wanted);
  SetGpuArithmetic(GpuArithmetic());
  return wanted;
}

void SetGpuArithmetic(const GpuArithmetic& arithmetic) {
  at::Context& context = at::globalContext();
  context.setDeterministicCuDNN(arithmetic.reproducible);
  context.setBenchmarkCuDNN(arithmetic.benchmark && !arithmetic.reproducible);
  context.setAllowTF32CuDNN(arithmetic.tf32);
  context.setAllowTF32CuBLAS(arithmetic.tf32);
}

#ifdef KINEFIT_CUDA

int64_t GpuMemory(const std::string& device) {
  if (!NamesGpu(device) || !at::hasCUDA()) return 0;
  const c10::DeviceIndex index = IndexOf(device);
  const DriverMemory memory = AskDriver(index);
  // The question has made the process's context, of which nobody can tell how large it is.
  const int64_t own =
      cache::getDeviceStats(index).reserved_bytes[kOfAll].current + cuda_constants::kContext.low;
  return std::min(static_cast<int64_t>(memory.free) + own, static_cast<int64_t>(memory.total));
}

void LimitGpuMemory(const std::string& device, int64_t bytes) {
  if (!NamesGpu(device)) return;
  const c10::DeviceIndex index = IndexOf(device);
  const auto total = static_cast<double>(AskDriver(index).total);
  const bool limited = bytes > 0 && total > 0;
  cache::setMemoryFraction(limited ? std::min(static_cast<double>(bytes) / total, 1.0) : 1.0,
                           index);
}

int64_t GpuPeakBytes(const std::string& device) {
  if (!NamesGpu(device)) return 0;
  return cache::getDeviceStats(IndexOf(device)).allocated_bytes[kOfAll].peak;
}

void ReleaseGpuCache() {
  if (at::hasCUDA()) cache::emptyCache();
}

#else

int64_t GpuMemory(const std::string& /*device*/) { return 0; }
void LimitGpuMemory(const std::string& /*device*/, int64_t /*bytes*/) {}
int64_t GpuPeakBytes(const std::string& /*device*/) { return 0; }
void ReleaseGpuCache() {}

#endif

void WithMemoryErrors(const std::function<void()>& work) {
  const int64_t before = Refusals();
  try {
    work();
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error& error) {
    const bool no_room = SaysNoAlgorithm(error) && Refusals() > before;
    if (!no_room && !SaysOutOfGpuMemory(error)) throw;
    throw c10::OutOfMemoryError(error.msg(), /*backtrace=*/{});
  }
}

}  // namespace kinefit
