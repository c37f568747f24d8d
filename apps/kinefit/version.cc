#include "apps/kinefit/version.h"

#include <ATen/Context.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/version.h>

#ifdef KINEFIT_CUDA
#include <nccl.h>
#endif

namespace kinefit {
namespace {

#ifdef KINEFIT_CUDA
std::string CudaText() {
  const auto& cuda = at::detail::getCUDAHooks();
  if (!cuda.hasCUDART()) return ", CUDA part not loaded";
  const int64_t version = cuda.versionCUDART();  // 1000 * major + 10 * minor
  int nccl = 0;                                  // 10000 * major + 100 * minor + patch
  const bool known = ncclGetVersion(&nccl) == ncclSuccess;
  return ", CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10) +
         ", NCCL " +
         (known ? std::to_string(nccl / 10000) + "." + std::to_string(nccl / 100 % 100) + "." +
                      std::to_string(nccl % 100)
                : std::string("unknown")) +
         ", " +
         std::to_string(c10::impl::getDeviceGuardImpl(c10::DeviceType::CUDA)->deviceCount()) +
         " GPUs";
}
#else
std::string CudaText() { return ""; }
#endif

}  // namespace

std::string VersionText() {
  return std::string("kinefit ") + KINEFIT_VERSION + ", LibTorch " +
         std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR) + "." +
         std::to_string(TORCH_VERSION_PATCH) + CudaText();
}

}  // namespace kinefit
