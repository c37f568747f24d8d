#include "onednn/convolution_scratch.h"

#include <dnnl.hpp>
#include <map>
#include <mutex>
#include <string>

#include "files/error.h"

namespace kinefit {
namespace {

using dnnl::algorithm;
using dnnl::memory;

const dnnl::engine& CpuEngine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory::desc AnyLayout(const memory::dims& sizes, memory::data_type type) {
  return {sizes, type, memory::format_tag::any};
}

memory::desc Dense(const memory::dims& sizes, memory::data_type type) {
  memory::dims strides(sizes.size(), 1);
  for (size_t i = sizes.size() - 1; i-- > 0;) strides[i] = strides[i + 1] * sizes[i + 1];
  return {sizes, type, strides};
}

// Bytes of the copy that a dense tensor of `sizes` needs where oneDNN wants `wanted`.
int64_t CopyBytes(const memory::desc& wanted, const memory::dims& sizes, memory::data_type type) {
  return wanted == Dense(sizes, type) ? 0 : static_cast<int64_t>(wanted.get_size());
}

// ideep calls a layout without inner blocks public and keeps its strides when it makes it dense.
std::vector<int64_t> PublicStrides(const memory::desc& layout, const memory::dims& sizes,
                                   memory::data_type type) {
  const auto& blocking = layout.data.format_desc.blocking;
  const bool plain = layout.data.format_kind == dnnl_blocked && blocking.inner_nblks == 0;
  const memory::desc dense = Dense(sizes, type);
  const auto& strides = plain ? blocking.strides : dense.data.format_desc.blocking.strides;
  return {strides, strides + sizes.size()};
}

class Query {
 public:
  explicit Query(const ConvolutionShape& shape)
      : shape_(shape), type_(shape.bfloat16 ? memory::data_type::bf16 : memory::data_type::f32) {
    for (int64_t d : shape.dilation) dilation_.push_back(d - 1);
    scratch_by_caller_.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  }

  ConvolutionScratch Forward() const {
    const auto pd = ForwardPrimitive(shape_.bias, scratch_by_caller_);
    ConvolutionScratch scratch;
    scratch.first_operand = CopyBytes(pd.src_desc(), shape_.input, type_);
    scratch.second_operand = CopyBytes(pd.weights_desc(), shape_.weight, type_);
    scratch.result = static_cast<int64_t>(pd.dst_desc().get_size());
    scratch.scratchpad = static_cast<int64_t>(pd.scratchpad_desc().get_size());
    scratch.result_strides = PublicStrides(pd.dst_desc(), shape_.output, type_);
    return scratch;
  }

  ConvolutionScratch BackwardInput() const {
    const dnnl::convolution_backward_data::desc desc(
        algorithm::convolution_direct, Any(shape_.input), Any(shape_.weight), Any(shape_.output),
        shape_.stride, dilation_, shape_.padding, shape_.padding);
    const dnnl::convolution_backward_data::primitive_desc pd(desc, scratch_by_caller_, CpuEngine(),
                                                             ForwardPrimitive(false, {}));
    ConvolutionScratch scratch;
    scratch.first_operand = CopyBytes(pd.diff_dst_desc(), shape_.output, type_);
    scratch.second_operand = CopyBytes(pd.weights_desc(), shape_.weight, type_);
    scratch.result = static_cast<int64_t>(pd.diff_src_desc().get_size());
    scratch.scratchpad = static_cast<int64_t>(pd.scratchpad_desc().get_size());
    scratch.result_strides = PublicStrides(pd.diff_src_desc(), shape_.input, type_);
    return scratch;
  }

  ConvolutionScratch BackwardWeight() const {
    const dnnl::convolution_backward_weights::primitive_desc pd(
        WeightGradient(), scratch_by_caller_, CpuEngine(), ForwardPrimitive(shape_.bias, {}));
    ConvolutionScratch scratch;
    scratch.first_operand = CopyBytes(pd.diff_dst_desc(), shape_.output, type_);
    scratch.second_operand = CopyBytes(pd.src_desc(), shape_.input, type_);
    scratch.result = static_cast<int64_t>(pd.diff_weights_desc().get_size());
    scratch.scratchpad = static_cast<int64_t>(pd.scratchpad_desc().get_size());
    scratch.result_strides = PublicStrides(pd.diff_weights_desc(), shape_.weight, type_);
    return scratch;
  }

 private:
  memory::desc Any(const memory::dims& sizes) const { return AnyLayout(sizes, type_); }
  memory::desc Bias() const { return Any({shape_.weight[0]}); }

  dnnl::convolution_forward::primitive_desc ForwardPrimitive(
      bool bias, const dnnl::primitive_attr& attributes) const {
    using dnnl::convolution_forward;
    const auto kind = dnnl::prop_kind::forward;
    const auto direct = algorithm::convolution_direct;
    const convolution_forward::desc desc =
        bias ? convolution_forward::desc(kind, direct, Any(shape_.input), Any(shape_.weight),
                                         Bias(), Any(shape_.output), shape_.stride, dilation_,
                                         shape_.padding, shape_.padding)
             : convolution_forward::desc(kind, direct, Any(shape_.input), Any(shape_.weight),
                                         Any(shape_.output), shape_.stride, dilation_,
                                         shape_.padding, shape_.padding);
    return {desc, attributes, CpuEngine()};
  }

  dnnl::convolution_backward_weights::desc WeightGradient() const {
    const auto direct = algorithm::convolution_direct;
    if (shape_.bias) {
      return {direct,    Any(shape_.input),  Any(shape_.weight),
              Bias(),    Any(shape_.output), shape_.stride,
              dilation_, shape_.padding,     shape_.padding};
    }
    return {direct,        Any(shape_.input), Any(shape_.weight), Any(shape_.output),
            shape_.stride, dilation_,         shape_.padding,     shape_.padding};
  }

  const ConvolutionShape& shape_;
  memory::data_type type_;
  memory::dims dilation_;
  dnnl::primitive_attr scratch_by_caller_;
};

std::vector<int64_t> CacheKey(ConvolutionPass pass, const ConvolutionShape& shape) {
  std::vector<int64_t> key = {static_cast<int64_t>(pass), shape.bfloat16 ? 1 : 0,
                              shape.bias ? 1 : 0, shape.threads,
                              static_cast<int64_t>(shape.input.size())};
  for (const auto* part : {&shape.input, &shape.weight, &shape.output, &shape.stride,
                           &shape.padding, &shape.dilation}) {
    key.insert(key.end(), part->begin(), part->end());
  }
  return key;
}

std::string Text(const std::vector<int64_t>& sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "[" : ", ") + std::to_string(size);
  return text + "]";
}

}  // namespace

const ConvolutionScratch& QueryConvolutionScratch(ConvolutionPass pass,
                                                  const ConvolutionShape& shape) {
  static std::mutex mutex;
  static std::map<std::vector<int64_t>, ConvolutionScratch> cache;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [entry, added] = cache.try_emplace(CacheKey(pass, shape));
  if (!added) return entry->second;
  try {
    const Query query(shape);
    entry->second = pass == ConvolutionPass::kForward         ? query.Forward()
                    : pass == ConvolutionPass::kBackwardInput ? query.BackwardInput()
                                                              : query.BackwardWeight();
  } catch (const dnnl::error& error) {
    cache.erase(entry);
    throw Error(std::string("oneDNN has no convolution of this shape: ") + error.what(),
                "input " + Text(shape.input) + ", weight " + Text(shape.weight),
                "use kernel, stride and channel numbers that make a valid network");
  }
  return entry->second;
}

}  // namespace kinefit
