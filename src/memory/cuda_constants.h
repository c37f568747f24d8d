#pragma once

#include <cstdint>

namespace kinefit {

// What a process takes from a GPU besides its tensors: every number of the kind that the planner
// uses, with where it comes from.
//
// Checked on an H100: cuBLAS's workspace (below), and that steps run in what is planned with these.
// The others are other people's measurements and constants from the libraries' sources and manuals;
// they differ between GPUs, drivers and library versions.
// Hence a range each: `low` and `high` bound what has been seen, `planned` is what to plan with.
// Where a run on the machine at hand can measure (cudaMemGetInfo before the first tensor), believe
// the measurement.
struct ByteRange {
  int64_t low = 0;
  int64_t planned = 0;
  int64_t high = 0;
};

namespace cuda_constants {

constexpr int64_t kMiB = int64_t{1} << 20;

// ---- Outside the caching allocator ----

// CUDA context of one process on one device, with kernels loaded when first used. That is how
// LibTorch 1.13 and later run (CUDA_MODULE_LOADING=LAZY) on CUDA 11.7 and later.
//   low: 256 MiB, PyTorch 2.7 on an RTX 3090 before its first kernel; 274 MiB is the figure of the
//        change that made LibTorch 1.13 load lazily.
//   planned, high: 530 MiB on an H100 (driver 580, LibTorch 2.11) before the first kernel; 640 MiB
//        and 1 GiB leave room for the convolution kernels that are loaded as the first step runs.
constexpr ByteRange kContext{256 * kMiB, 640 * kMiB, 1024 * kMiB};

// The same with all kernels loaded at once: older CUDA, or CUDA_MODULE_LOADING=EAGER.
//   low: 636 MiB, the figure before that change.
//   planned: 1 GiB, PyTorch 1.3 on a Titan V; "more than 1000 MB" in PyTorch's own forum.
//   high: 1.5 GiB, PyTorch 1.7 on an RTX 3090 (1644 MiB in use, 156 of them a tensor).
constexpr ByteRange kEagerContext{636 * kMiB, 1024 * kMiB, 1536 * kMiB};

// One NCCL communicator between two devices: about 12 MiB for each channel and connection, since
// its three protocols' buffers are 4 MiB (NCCL_BUFFSIZE) + 4.69 MiB + 0.5 MiB, in pages of 2 MiB,
// with one page for the sender. Rings and trees have a connection each.
//   low: 2 channels over PCIe, ring and tree: 48 MiB.
//   planned: 544 MiB, measured between two A100 with NVLink.
//   high: 32 channels, as on H100 with NVLink: 768 MiB.
constexpr ByteRange kNcclPair{48 * kMiB, 544 * kMiB, 768 * kMiB};

// One NCCL communicator of three or more devices; beyond that the number hardly matters.
//   low: as above. planned: 688 MiB, measured between three and four A100 with NVLink.
//   high: 1.6 GB, the most reported after an all-reduce.
constexpr ByteRange kNcclGroup{48 * kMiB, 688 * kMiB, 1536 * kMiB};

// ---- Inside the caching allocator: blocks like any other, to be added to a trace ----

// cuBLAS's workspace, allocated at the first matrix product of a thread on a stream and kept. On
// Hopper (compute capability 9.0) 32 MiB, as cuBLAS's manual recommends, and half a MiB more:
// measured on an H100 with LibTorch 2.11, 65 MiB for two threads in all of 16 kinds of steps.
// Elsewhere it is less ("CUBLAS_WORKSPACE_CONFIG" unset: 8.1 MiB, LibTorch 1.13 4 MiB).
constexpr int64_t kCublasWorkspace = 32 * kMiB + kMiB / 2;

// Workspaces of convolutions are not planned for: PyTorch sets no limit of its own, cuDNN's
// heuristics choose, and where a workspace cannot be had the next algorithm is tried.

}  // namespace cuda_constants

// What decides which of them apply. Precision does not: it changes tensors and workspaces only.
struct CudaProcess {
  int devices = 1;             // that train together, one process each
  int communicators = 1;       // NCCL communicators of each process; none if there is one device
  bool eager_kernels = false;  // CUDA before 11.7, or CUDA_MODULE_LOADING=EAGER
};

// Bytes of one device outside the caching allocator: the context and NCCL. Other processes on the
// device come on top.
constexpr ByteRange OutsideBytes(const CudaProcess& process) {
  namespace c = cuda_constants;
  ByteRange sum = process.eager_kernels ? c::kEagerContext : c::kContext;
  if (process.devices < 2) return sum;
  const ByteRange& nccl = process.devices == 2 ? c::kNcclPair : c::kNcclGroup;
  sum.low += process.communicators * nccl.low;
  sum.planned += process.communicators * nccl.planned;
  sum.high += process.communicators * nccl.high;
  return sum;
}

}  // namespace kinefit
