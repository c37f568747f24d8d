#pragma once

#include <ATen/ATen.h>

namespace kinefit {

// Gives LibTorch the kernels it lacks on the meta device, where tensors have shapes but no memory.
// Each allocates, keeps and releases what the kernel of the device to be planned for does, in the
// same order: on the CPU that includes the copies and scratch of oneDNN and the column buffers of
// LibTorch's own convolutions. Safe to call again.
void RegisterMetaKernels();

// For which device the kernels allocate. On CUDA cuDNN's workspaces are not modelled.
enum class KernelModel { kCpu, kCuda };
void SetKernelModel(KernelModel model);

}  // namespace kinefit
