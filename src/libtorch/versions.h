#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/ConvUtils.h>
#include <c10/core/Allocator.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/version.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

// All that differs between the versions of LibTorch that kinefit is built against (1.13 and 2.x;
// docs/libtorch.md says which were tried). Where the headers themselves can be asked, they are,
// rather than version numbers.

namespace kinefit {

// Whether the CPU's gradient of batch norm multiplies and adds in one instruction, as the compiler
// contracted it in 1.13. The loops of ops/batch_norm_rows.h follow its rounding bit by bit.
inline constexpr bool kFusesBatchNormProducts = TORCH_VERSION_MAJOR < 2;

#if TORCH_VERSION_MAJOR < 2
template <typename T>
using Optional = c10::optional<T>;
#else
template <typename T>
using Optional = std::optional<T>;
#endif

// How many threads operations on the CPU use. PyTorch packages bring an OpenMP of their own, so the
// one that is linked here, oneDNN's and that of at::parallel_for in our sources, is told as well.
inline void UseThreads(int threads) {
  at::set_num_threads(threads);
#ifdef _OPENMP
  omp_set_num_threads(threads);
#endif
}

// Which kernel LibTorch picks for a convolution without bias. Since 2.0 sizes may be symbols.
inline at::native::ConvBackend SelectConvolution(const at::Tensor& input, const at::Tensor& weight,
                                                 at::IntArrayRef stride, at::IntArrayRef padding,
                                                 at::IntArrayRef dilation, bool transposed,
                                                 at::IntArrayRef output_padding, int64_t groups) {
#if TORCH_VERSION_MAJOR < 2
  return at::native::select_conv_backend(input, weight, {}, stride, padding, dilation, transposed,
                                         output_padding, groups);
#else
  const auto sizes = [](at::IntArrayRef of) { return c10::fromIntArrayRefSlow(of); };
  return at::native::select_conv_backend(input, weight, {}, sizes(stride), sizes(padding),
                                         sizes(dilation), transposed, sizes(output_padding), groups,
                                         std::nullopt);
#endif
}

// Whether oneDNN computes this transposed convolution, as it does in 2.x.
inline bool IsOneDnnTransposed([[maybe_unused]] at::native::ConvBackend backend) {
#if TORCH_VERSION_MAJOR < 2
  return false;
#else
  return backend == at::native::ConvBackend::MkldnnTranspose;
#endif
}

// 2.x brings oneDNN 3, which is not the one that src/onednn asks: what it takes is in
// onednn/scratch_of_onednn3.h. Transposed convolutions are oneDNN's, too, and tensors that are
// channels last stay so.
inline constexpr bool kBringsOneDnn3 = TORCH_VERSION_MAJOR >= 2;

// With 2.15 the CPU's gradient of a convolution's weight is garbage in bfloat16 where a kernel of 3
// frames meets 2 frames (measured; with any other number of frames it is right).
inline bool IsWrongInBfloat16(const at::Tensor& input, const at::Tensor& weight) {
  return kBringsOneDnn3 && input.scalar_type() == at::kBFloat16 && input.size(2) == 2 &&
         weight.size(2) == 3;
}

// Copies each of `from` to the one of `to` at its place, on a GPU in few kernels.
inline void CopyAll(std::vector<at::Tensor>& to, const std::vector<at::Tensor>& from) {
#if TORCH_VERSION_MAJOR >= 2
  if (!to.empty() && to.front().is_cuda()) {
    at::_foreach_copy_(to, from, /*non_blocking=*/true);
    return;
  }
#endif
  for (size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
}

// An allocator of the CPU or the meta device. In 1.13 allocate() is const; later it is not, and
// copy_data() has come. Whatever the base class does not know is an overload that nobody calls.
class TensorAllocator : public c10::Allocator {
 public:
  // NOLINTBEGIN(modernize-use-override,cppcoreguidelines-explicit-virtual-functions)
  c10::DataPtr allocate(size_t bytes) const { return Allocate(bytes); }
  c10::DataPtr allocate(size_t bytes) { return Allocate(bytes); }
  void copy_data(void* to, const void* from, size_t bytes) const {
    if (to != nullptr && from != nullptr) std::memcpy(to, from, bytes);
  }
  // NOLINTEND(modernize-use-override,cppcoreguidelines-explicit-virtual-functions)

 protected:
  virtual c10::DataPtr Allocate(size_t bytes) const = 0;
};

// Hands a new node of the autograd graph over to `Pointer`, the type LibTorch owns nodes by: a
// std::shared_ptr with a deleter that takes long graphs apart without recursion, later a
// c10::intrusive_ptr, which does so itself.
template <typename Pointer, typename Node>
Pointer OwnNode(Node* node) {
  if constexpr (std::is_constructible_v<Pointer, Node*, void (*)(Node*)>) {
    return Pointer(node, [](Node* unused) { deleteNode(unused); });
  } else {
    return Pointer::unsafe_steal_from_new(node);
  }
}

// ---- c10d. Its types are parameters, so that who has nothing to do with it needs no header of it.

// Since 2.0 a c10d::ProcessGroup has one backend for each kind of device, with a `name` ("gloo",
// "nccl"); before, it was the backend.
template <typename ProcessGroup, typename Backend, typename Store>
c10::intrusive_ptr<ProcessGroup> GroupOfBackend(const c10::intrusive_ptr<Backend>& backend,
                                                [[maybe_unused]] const Store& store,
                                                [[maybe_unused]] c10::DeviceType device,
                                                [[maybe_unused]] const char* name) {
  if constexpr (std::is_base_of_v<ProcessGroup, Backend>) {
    return backend;
  } else {
    const auto type = ProcessGroup::strToBackendType(name);
    auto group = c10::make_intrusive<ProcessGroup>(store, backend->getRank(), backend->getSize());
    group->setBackend(device, type, backend);
    group->setDefaultBackend(type);
    return group;
  }
}

// A c10d::Reducer that expects no sparse and no missing gradients, and whose buckets are what the
// gradients are views of.
template <typename Reducer, typename ProcessGroup>
class BucketReducer : public Reducer {
 protected:
  using Assignment = std::vector<std::vector<size_t>>;

  BucketReducer(const std::vector<at::Tensor>& parameters, const Assignment& assignment,
                const c10::intrusive_ptr<ProcessGroup>& group, int64_t bucket_bytes,
                int64_t first_bucket_bytes)
#if TORCH_VERSION_MAJOR < 2
      : Reducer(parameters, assignment, std::vector<size_t>(assignment.size(), 0), group,
                std::vector<bool>(parameters.size(), false), bucket_bytes,
                /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true,
                /*param_names=*/{}, first_bucket_bytes)
#else
      : Reducer(parameters, assignment, group, std::vector<bool>(parameters.size(), false),
                bucket_bytes, /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true,
                /*param_names=*/{}, first_bucket_bytes, /*skip_all_reduce_unused_params=*/false,
                /*use_python_reducer=*/false, /*bucket_bytes_cap_list=*/{})
#endif
  {
  }
};

}  // namespace kinefit
