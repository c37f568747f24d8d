#pragma once

#include <ATen/ATen.h>

namespace kinefit {

// The layout of features and weights on GPUs: [N, C, T, H, W] with the channels of a pixel side by
// side in memory, as cuDNN's tensor-core kernels and our own want it.
constexpr at::MemoryFormat kChannelsLast = at::MemoryFormat::ChannelsLast3d;

inline bool IsChannelsLast(const at::Tensor& x) {
  return x.dim() == 5 && x.is_contiguous(kChannelsLast);
}
// x itself, or a copy in that layout.
inline at::Tensor ChannelsLast(const at::Tensor& x) {
  TORCH_CHECK(x.dim() == 5, "features on a GPU have five dimensions, not ", x.dim());
  return x.contiguous(kChannelsLast);
}

}  // namespace kinefit
