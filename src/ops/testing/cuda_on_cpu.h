#pragma once

// CUDA's words for kernels on the CPU; for tests. Threads of a block that wait for one another
// (LaunchTogether) are fibers, all others run to their end one by one.

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)

namespace kinefit::cuda {

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1)  // NOLINT: as CUDA's
      : x(a), y(b), z(c) {}
};

using Half = c10::Half;
using BFloat16 = c10::BFloat16;
inline float HalfToFloat(Half value) { return static_cast<float>(value); }
inline Half FloatToHalf(float value) { return Half(value); }
inline float BFloat16ToFloat(BFloat16 value) { return static_cast<float>(value); }
inline BFloat16 FloatToBFloat16(float value) { return BFloat16(value); }

using std::fma;
using std::fmax;
using std::sqrt;

// Where the running thread stands.
extern dim3 blockIdx, threadIdx, gridDim, blockDim;
double* SharedMemory();
void __syncthreads();                                            // NOLINT: as CUDA's
double __shfl_xor_sync(unsigned mask, double value, int lanes);  // NOLINT

void RunBlocks(dim3 blocks, dim3 threads, size_t shared_bytes, bool together,
               const std::function<void()>& thread);

template <typename Kernel, typename... Arguments>
void Launch(Kernel kernel, dim3 blocks, dim3 threads, size_t shared_bytes, void* /*stream*/,
            Arguments... arguments) {
  RunBlocks(blocks, threads, shared_bytes, false, [&] { kernel(arguments...); });
}
template <typename Kernel, typename... Arguments>
void LaunchTogether(Kernel kernel, dim3 blocks, dim3 threads, size_t shared_bytes, void* /*stream*/,
                    Arguments... arguments) {
  RunBlocks(blocks, threads, shared_bytes, true, [&] { kernel(arguments...); });
}

}  // namespace kinefit::cuda
