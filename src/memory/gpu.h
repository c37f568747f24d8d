#pragma once

#include <c10/core/Device.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <functional>
#include <string>

namespace kinefit {

// The GPU of a run, through LibTorch. In a build without CUDA (docs/libtorch.md) there is none, and
// on other devices than "cuda" and "cuda:N" everything here does nothing.

// How cuDNN and cuBLAS compute.
struct GpuArithmetic {
  bool reproducible = true;  // only algorithms that give the same bits each time
  bool benchmark = false;    // cuDNN tries its algorithms at each new shape and takes the fastest
  bool tf32 = true;          // float32 products and convolutions with operands of 10 bits
};
void SetGpuArithmetic(const GpuArithmetic& arithmetic);

// The device that "cpu", "cuda" or "cuda:N" names. A GPU becomes this process's: what asks CUDA for
// "the current device" gets it, and computes as GpuArithmetic() says until SetGpuArithmetic is
// called. Throws Error if there is no such device.
c10::Device UseDevice(const std::string& device);

// Bytes the process may have of it: what is free, and what the process has already. 0: not known.
int64_t GpuMemory(const std::string& device);

// From now on tensors get at most `bytes` of it; beyond that c10::OutOfMemoryError is thrown.
// 0: whatever the GPU has.
void LimitGpuMemory(const std::string& device, int64_t bytes);

// The most that tensors had of it at once.
int64_t GpuPeakBytes(const std::string& device);

// Gives what LibTorch's cache holds free back to the driver, on all GPUs.
void ReleaseGpuCache();

// Runs `work`. The CUDA runtime and its libraries (cuBLAS, cuDNN) say in errors of their own that
// they found no memory: those are thrown on as c10::OutOfMemoryError, like those of tensors.
void WithMemoryErrors(const std::function<void()>& work);

}  // namespace kinefit
