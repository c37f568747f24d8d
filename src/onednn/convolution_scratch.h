#pragma once

#include <cstdint>
#include <vector>

#include "onednn/convolution_pass.h"

namespace kinefit {

// A convolution as oneDNN sees it; sizes as in ATen, [N, C, (T,) H, W] and [O, I, (T,) H, W].
struct ConvolutionShape {
  bool bfloat16 = false;  // else float32
  std::vector<int64_t> input, weight, output;
  std::vector<int64_t> stride, padding, dilation;
  bool bias = false;
  int threads = 1;  // of OpenMP, that are set at the time of asking
};

// The memory LibTorch's CPU convolution takes for a moment besides its dense tensors: copies in
// oneDNN's blocked layouts and scratch. Bytes; 0 where the dense tensor serves as it is.
struct ConvolutionScratch {
  int64_t first_operand = 0;   // input in the forward pass, output gradient in the backward passes
  int64_t second_operand = 0;  // weights, or the input in kBackwardWeight
  int64_t result = 0;          // alive until it has been copied into the dense result
  int64_t scratchpad = 0;
  // Strides of the dense result; where they are not contiguous LibTorch copies it once more.
  std::vector<int64_t> result_strides;
};

// Asks oneDNN which layouts it would choose on this machine with this number of threads, in the
// order of calls of ideep's convolution operators. Nothing is executed. Answers are cached.
// Throws Error if oneDNN has no such convolution.
const ConvolutionScratch& QueryConvolutionScratch(ConvolutionPass pass,
                                                  const ConvolutionShape& shape);

}  // namespace kinefit
