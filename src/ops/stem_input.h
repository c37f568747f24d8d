#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstdint>

namespace kinefit {

// How bytes become what the network sees: (value - mean[c]) / std[c].
struct ByteNormalisation {
  std::array<double, 3> mean = {0, 0, 0};
  std::array<double, 3> std = {1, 1, 1};
};

// What a stem reads, in the type it computes in, made by one kernel on a GPU: channels-last, with
// channels of zeros up to what the tensor cores take at once (8 of 16 bits, 4 of float32). x is
// float [N, C, T, H, W], or bytes [N, T, H, W, 3]. Elsewhere float x is cast, and bytes are
// normalised to [N, 3, T, H, W]. No gradient.
at::Tensor StemInput(const at::Tensor& x, at::ScalarType type, const ByteNormalisation& bytes = {});

}  // namespace kinefit
