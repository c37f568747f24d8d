#pragma once

#include <ATen/ATen.h>

#include <string>

#include "files/npy.h"

namespace kinefit {

// The array `name` of a .npz as a float tensor [N, channels, T, H, W]. Throws Error naming `file`
// if it is missing or has another shape or type.
at::Tensor RequireArray(const NpzArrays& arrays, const std::string& name, int64_t channels,
                        const std::string& file);

// float32 copy on the CPU.
NdArray ToNdArray(const at::Tensor& tensor);

}  // namespace kinefit
