#include "onednn/scratch_of_onednn3.h"

#include <algorithm>
#include <dnnl.hpp>
#include <functional>
#include <numeric>

namespace kinefit {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kAlignment = 128;    // of the parts of a scratchpad
constexpr int64_t kBatchElement = 40;  // sizeof(brgemm_batch_element_t)

int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

int64_t Product(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

// Positions along one dimension of the output that the kernel reaches, beyond its ends too.
int64_t ReachedOutputs(const ConvolutionShape& shape, size_t i) {
  const int64_t kernel = shape.weight[i + 2];
  const int64_t stride = shape.stride[i];
  const int64_t output = shape.output[i + 2];
  const int64_t begin = shape.padding[i];
  const int64_t end = (output - 1) * stride + kernel - shape.input[i + 2] - begin;
  const auto beyond = [&](int64_t padding) {
    return std::max<int64_t>(kernel - 1 - padding, 0) / stride;
  };
  return output + beyond(begin) + beyond(end);
}

bool HasAvx512() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core);
  return (isa & wanted) == wanted;
}

// Input channels that these kernels do at a time: one, two or four registers of 32-bit numbers.
int64_t ChannelBlock(int64_t channels) {
  const int64_t lanes = HasAvx512() ? 16 : 8;
  if (channels <= lanes) return lanes;
  return channels % (4 * lanes) == 0 ? 4 * lanes : 2 * lanes;
}

std::vector<int64_t> ChannelsLast(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  int64_t stride = sizes[1];
  for (size_t i = sizes.size() - 1; i >= 2; --i) {
    strides[i] = stride;
    stride *= sizes[i];
  }
  strides[0] = stride;
  return strides;
}

// Each of its parts begins on a page.
int64_t StridedGradientScratchpad(const ConvolutionShape& shape, int64_t element) {
  const size_t dims = shape.stride.size();
  const int64_t channels = shape.output[1];
  int64_t kernel = 1;
  int64_t reached = 1;
  for (size_t i = 0; i < dims; ++i) {
    kernel *= shape.weight[i + 2];
    reached *= ReachedOutputs(shape, i);
  }
  const int64_t batch = RoundUp(RoundUp(kernel * kBatchElement, kPage), kBatchElement);
  const int64_t copied = RoundUp(reached * channels, kPage) * element;
  int64_t bytes = shape.threads * (batch + copied + kPage) + 3 * kPage;
  const int64_t width = shape.input.back();
  const int64_t stride = shape.stride.back();
  const int64_t columns = RoundUp(width, stride) / stride;
  if (shape.bfloat16) {  // sums in float32
    bytes += shape.threads * ChannelBlock(shape.input[1]) * columns * 4 + kPage;
  }
  if (width % stride != 0) {
    const int64_t row = columns * stride * stride * shape.input[1];
    bytes += shape.threads * RoundUp(row, kPage) * element + kPage;
  }
  return bytes;
}

// The input gradient of a convolution with a stride. oneDNN 3 has kernels of its own for it
// ("brgconv_strided"; see init_scratchpad in its jit_brgemm_conv_bwd_utils.cpp), which work
// channels last and unpadded.
ConvolutionScratch StridedGradient(const ConvolutionShape& shape) {
  const int64_t element = shape.bfloat16 ? 2 : 4;
  ConvolutionScratch scratch;
  scratch.first_operand = Product(shape.output) * element;
  const int64_t columns = Product(shape.weight) / shape.weight[1];
  scratch.second_operand =
      columns * RoundUp(shape.weight[1], ChannelBlock(shape.weight[1])) * element;
  scratch.result = Product(shape.input) * element;
  scratch.scratchpad = StridedGradientScratchpad(shape, element);
  scratch.result_strides = ChannelsLast(shape.input);
  return scratch;
}

bool AllOnes(const std::vector<int64_t>& sizes, size_t from) {
  return std::all_of(sizes.begin() + static_cast<std::ptrdiff_t>(from), sizes.end(),
                     [](int64_t size) { return size == 1; });
}

}  // namespace

ConvolutionScratch ScratchOfOneDnn3(ConvolutionPass pass, const ConvolutionShape& shape,
                                    bool transposed) {
  const bool strided = !AllOnes(shape.stride, 0);
  ConvolutionScratch scratch = pass == ConvolutionPass::kBackwardInput && strided
                                   ? StridedGradient(shape)
                                   : QueryConvolutionScratch(pass, shape);
  if (scratch.scratchpad == 0) return scratch;
  // Threads that sum a weight gradient meet at a barrier that has a page to itself.
  const bool meet = pass == ConvolutionPass::kBackwardWeight && shape.threads > 1 && HasAvx512();
  if (meet && AllOnes(shape.weight, 2)) scratch.scratchpad += 2 * kPage;
  if (transposed) scratch.scratchpad += kAlignment;  // a convolution's inside of another one
  return scratch;
}

}  // namespace kinefit
