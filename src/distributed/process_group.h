#pragma once

#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "libtorch/versions.h"

namespace kinefit {

using ProcessGroup = c10::intrusive_ptr<c10d::ProcessGroup>;
using Store = c10::intrusive_ptr<c10d::Store>;

inline ProcessGroup MakeGloo(const Store& store, int rank, int world,
                             const c10::intrusive_ptr<c10d::ProcessGroupGloo::Options>& options) {
  return GroupOfBackend<c10d::ProcessGroup>(
      c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, world, options), store,
      c10::DeviceType::CPU, "gloo");
}

#ifdef USE_C10D_NCCL
inline ProcessGroup MakeNccl(const Store& store, int rank, int world,
                             std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return GroupOfBackend<c10d::ProcessGroup>(
      c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, world, options), store,
      c10::DeviceType::CUDA, "nccl");
}

// NCCL connects when it is first used. Better at once, while there is memory for its buffers and
// an error is an error at the start, than in the first backward pass.
inline void ConnectNccl(const ProcessGroup& group) {
  std::vector<at::Tensor> first = {
      at::zeros({1}, at::TensorOptions().device(at::kCUDA).dtype(at::kFloat))};
  group->allreduce(first)->wait();
  first[0].item<float>();
}
#endif

}  // namespace kinefit
