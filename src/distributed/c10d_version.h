#pragma once

// The one place that knows how c10d differs between LibTorch 1.13 and 2.x.

#include <torch/version.h>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace kinefit {

using ProcessGroup = c10::intrusive_ptr<c10d::ProcessGroup>;
using Store = c10::intrusive_ptr<c10d::Store>;

#if TORCH_VERSION_MAJOR >= 2
template <typename Backend>
ProcessGroup AsProcessGroup(const c10::intrusive_ptr<Backend>& backend, const Store& store,
                            int rank, int world, c10::DeviceType device,
                            c10d::ProcessGroup::BackendType type) {
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, world);
  group->setBackend(device, type, backend);
  group->setDefaultBackend(type);
  return group;
}
#endif

inline ProcessGroup MakeGloo(const Store& store, int rank, int world,
                             const c10::intrusive_ptr<c10d::ProcessGroupGloo::Options>& options) {
  auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, world, options);
#if TORCH_VERSION_MAJOR >= 2
  return AsProcessGroup(gloo, store, rank, world, c10::DeviceType::CPU,
                        c10d::ProcessGroup::BackendType::GLOO);
#else
  return gloo;
#endif
}

#ifdef USE_C10D_NCCL
inline ProcessGroup MakeNccl(const Store& store, int rank, int world,
                             std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, world, options);
#if TORCH_VERSION_MAJOR >= 2
  return AsProcessGroup(nccl, store, rank, world, c10::DeviceType::CUDA,
                        c10d::ProcessGroup::BackendType::NCCL);
#else
  return nccl;
#endif
}
#endif

}  // namespace kinefit
