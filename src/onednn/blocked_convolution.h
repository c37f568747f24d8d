#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "onednn/convolution_pass.h"

// Convolutions of float32 feature maps that lie in memory as [N, C/B, T, H, W, B], what oneDNN's
// own convolutions compute in. On bare memory, which the caller allocates: LibTorch's headers and
// oneDNN's do not go together in every version (docs/libtorch.md).

namespace kinefit {

// B on this machine: 16 with AVX-512; 0 on other processors, where some gradients in this layout
// have only oneDNN's reference kernels.
int64_t BlockedChannels();

// Copies a map of `sizes` [N, C, T, H, W], C a multiple of B, into the layout and out of it.
void CopyToBlocked(const std::vector<int64_t>& sizes, float* from, float* to);
void CopyFromBlocked(const std::vector<int64_t>& sizes, float* from, float* to);

// Without bias, dilation or groups.
struct BlockedConvolutionShape {
  std::vector<int64_t> input, weight, output;  // [N, C, T, H, W], [O, I, T, H, W], as input
  std::vector<int64_t> stride, padding;        // of T, H, W
  int threads = 1;  // of OpenMP, that are set at the time of making and running
};

// One pass of one convolution, compiled for its shape. May be used by several threads at a time.
class BlockedConvolution {
 public:
  BlockedConvolution(ConvolutionPass pass, const BlockedConvolutionShape& shape);
  ~BlockedConvolution();
  BlockedConvolution(const BlockedConvolution&) = delete;
  BlockedConvolution& operator=(const BlockedConvolution&) = delete;

  // Of what Run() needs besides its operands.
  int64_t scratch_bytes() const;
  // Of the weight (or its gradient) in the layout Run() wants; 0: the usual layout is it.
  int64_t weight_bytes() const;
  void CopyWeightIn(float* usual, void* own) const;
  void CopyWeightOut(void* own, float* usual) const;

  // The pass writes one of the three (maps or their gradients, blocked) and reads the others.
  void Run(float* input, void* weight, float* output, void* scratch) const;

 private:
  struct Primitive;
  std::unique_ptr<const Primitive> primitive_;
};

// Made when first asked for, then kept. Throws what oneDNN throws (a std::exception) if it has no
// such convolution.
std::shared_ptr<const BlockedConvolution> BlockedConvolutionFor(
    ConvolutionPass pass, const BlockedConvolutionShape& shape);

}  // namespace kinefit
