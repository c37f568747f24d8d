#pragma once

// What gpu_kernels.cu needs of CUDA. Compiled by nvcc it is CUDA's own; by any other compiler it
// runs the same kernels on the CPU, one thread after the other, so that tests can hold their logic
// against ATen where there is no GPU.

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace kinefit::cuda {

using Half = __half;
using BFloat16 = __nv_bfloat16;
__device__ __forceinline__ float HalfToFloat(Half value) { return __half2float(value); }
__device__ __forceinline__ Half FloatToHalf(float value) { return __float2half_rn(value); }
__device__ __forceinline__ float BFloat16ToFloat(BFloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ BFloat16 FloatToBFloat16(float value) {
  return __float2bfloat16_rn(value);
}

__device__ __forceinline__ double* SharedMemory() {
  extern __shared__ double shared_memory[];
  return shared_memory;
}

// Queues a kernel of `blocks` times `threads`.
template <typename Kernel, typename... Arguments>
void Launch(Kernel kernel, dim3 blocks, dim3 threads, size_t shared_bytes, void* stream,
            Arguments... arguments) {
  kernel<<<blocks, threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
}
// The same for kernels whose threads wait for one another.
template <typename Kernel, typename... Arguments>
void LaunchTogether(Kernel kernel, dim3 blocks, dim3 threads, size_t shared_bytes, void* stream,
                    Arguments... arguments) {
  Launch(kernel, blocks, threads, shared_bytes, stream, arguments...);
}

}  // namespace kinefit::cuda

#else
#include "ops/testing/cuda_on_cpu.h"
#endif
